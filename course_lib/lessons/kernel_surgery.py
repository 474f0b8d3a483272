"""The exercises of notebook 04: removing filters by hand."""

from __future__ import annotations

from course_lib.lessons import surgery_answers as answers
from course_lib.lessons import surgery_cases as cases
from course_lib.lessons.exercise import Exercise, Mistake
from course_lib.lessons.prediction import Question
from course_lib.lessons.surgery_rules import COLUMNS, COUPLED

CUT_CONV = Exercise(
    id="04.1",
    title="Cut a convolution",
    solution=answers.cut_conv,
    cases=cases.convolutions,
    use=cases.conv_parts,
    praise="Filters are rows of the weight, input channels are its columns.",
    mistakes=(
        Mistake(
            answers.cut_swapped,
            "The two dimensions are swapped: the filters lie along dimension 0 of the weight, the"
            " input channels along dimension 1.",
        ),
        Mistake(
            answers.cut_outs_only,
            "You cut the filters and didn't use `ins`: the columns of the weight shrink as well.",
        ),
        Mistake(
            answers.cut_bias_wide,
            "The weight is right, but the bias still has a number for every old filter.",
        ),
        Mistake(
            answers.cut_removed,
            "You removed what is listed: `outs` and `ins` are what stays.",
        ),
        Mistake(
            answers.cut_records_stale,
            "The tensors are right, but out_channels and in_channels still hold the old widths,"
            " and print(conv) would show those.",
        ),
        Mistake(answers.cut_bare, "Stride and padding are lost: begin with copy.deepcopy(conv)."),
        Mistake(
            answers.single(answers.cut_conv),
            "It is float32, whatever type the old one has: begin with copy.deepcopy(conv).",
        ),
        Mistake(
            answers.in_place(answers.cut_conv),
            "You cut the convolution you were given: return a new one and leave the old one alone.",
        ),
    ),
)

CUT_NORM = Exercise(
    id="04.2",
    title="Cut a batch norm",
    solution=answers.cut_norm,
    cases=cases.norms,
    use=cases.norm_parts,
    praise="Four tensors and one record, all cut at the same places.",
    mistakes=(
        Mistake(
            answers.fresh_norm,
            "This is a new batch norm of the right width: it has forgotten what the old one"
            " learned and counted. No error is raised, and every kept channel is scaled wrongly.",
        ),
        Mistake(
            answers.first_norm,
            "It keeps the first channels instead of those in `kept`: each channel gets another"
            " one's numbers, and no error is raised.",
        ),
        Mistake(
            answers.norm_statistics_wide,
            "Weight and bias are cut, but running_mean and running_var are still wide.",
        ),
        Mistake(
            answers.norm_statistics_learned,
            "The numbers are right, but running_mean and running_var are nn.Parameter now, which"
            " batch norm refuses: they are not learned, so assign them as they are.",
        ),
        Mistake(
            answers.norm_records_stale,
            "The four tensors are right, but num_features still holds the old width.",
        ),
        Mistake(
            answers.norm_rest_fresh,
            "The four tensors are right, but eps, momentum, the count of batches and the mode are"
            " those of a fresh batch norm: begin with copy.deepcopy(norm).",
        ),
        Mistake(
            answers.single(answers.cut_norm),
            "It is float32, whatever type the old one has: begin with copy.deepcopy(norm).",
        ),
        Mistake(
            answers.in_place(answers.cut_norm),
            "You cut the batch norm you were given: return a new one and leave the old one alone.",
        ),
    ),
)

PRUNE_CONV1 = Exercise(
    id="04.3",
    title="Bug hunt: filters of conv1",
    solution=answers.prune_conv1,
    cases=cases.one_block,
    use=cases.block_output,
    praise="conv1, its norm and the one layer that reads it: three cuts, and none outside.",
    handed_out=Mistake(
        answers.norm_left_wide,
        "The new block stops with a RuntimeError as soon as it is called: one layer between conv1"
        " and conv2 still expects all the channels.",
    ),
    mistakes=(
        Mistake(
            lambda block, kept: answers.prune_conv1(block, kept, answers.fresh_norm),
            "It runs, but with a new batch norm in place of the old one, or with none: scale, shift"
            " and statistics of the kept channels are lost.",
        ),
        Mistake(
            lambda block, kept: answers.prune_conv1(block, kept, answers.first_norm),
            "It runs, but the norm has kept its first channels instead of those in `kept`.",
        ),
        Mistake(
            answers.in_place(answers.prune_conv1),
            "You changed the block you were given: copy it first.",
        ),
    ),
)

ZERO_CHANNELS = Exercise(
    id="04.4",
    title="Mask channels",
    solution=answers.zero_channels,
    cases=cases.values,
    use=cases.zeroed,
    praise="This is the other side of the proof: the wide network, reading zeros.",
    mistakes=(
        Mistake(answers.zero_kept, "It zeroes the channels of `kept` and leaves the others."),
        Mistake(
            answers.zero_in_place,
            "The result is right, but you changed x itself on the way: the wide network would go on"
            " with other numbers. Work on a copy.",
        ),
        Mistake(
            answers.zero_images,
            "It zeroes along dimension 0, which counts images: channels are dimension 1.",
        ),
        Mistake(
            lambda x, kept: x[:, kept],
            "It removes the channels: a masked value keeps its shape, with zeros in it.",
        ),
    ),
)

PRUNE_CONV2 = Exercise(
    id="04.5",
    title="Filters of conv2",
    solution=answers.prune_conv2,
    cases=cases.two_blocks,
    use=cases.both_outputs,
    praise="Both terms of the sum shrink alike, and so do both layers that read it.",
    mistakes=(
        Mistake(
            answers.conv2_without("shortcut"),
            "The block adds two values of different widths: its projection shortcut has to lose"
            " the same channels, with its norm.",
        ),
        Mistake(
            answers.conv2_without("shortcut norm"),
            "The projection is cut, but the batch norm after it is still wide.",
        ),
        Mistake(
            answers.conv2_without("next shortcut"),
            "The next block's conv1 is cut; its projection shortcut reads the same value and"
            " still expects all the channels.",
        ),
        Mistake(
            answers.conv2_without("reader", "next shortcut"),
            "The first block is right; the next block still reads all the old channels.",
        ),
        Mistake(
            answers.conv2_without("norm"),
            "conv2 is cut, but the batch norm after it is still wide.",
        ),
        Mistake(
            answers.conv2_next_norm,
            "You cut a norm of the next block too: its norms belong to the channels that it makes,"
            " and stay as they are.",
        ),
        Mistake(
            answers.conv2_shortcut_ins,
            "You cut the projection along its input channels: the block's input has not changed,"
            " it is the projection's own filters that go.",
        ),
        Mistake(
            answers.in_place(answers.prune_conv2),
            "You changed the blocks you were given: copy them first.",
        ),
    ),
)

KEEP_LARGEST = Exercise(
    id="04.6",
    title="Bug hunt: the misaligned shortcut",
    solution=answers.keep_largest,
    cases=cases.two_blocks_and_count,
    use=cases.output_only,
    praise="One choice for everything that is added: channel i means the same on both paths.",
    handed_out=Mistake(
        answers.misaligned,
        "No error is raised and all shapes fit, but the output isn't that of the masked block:"
        " print which channels each of the two paths keeps.",
    ),
    mistakes=(
        Mistake(
            answers.half_aligned,
            "The projection now keeps conv2's channels, but the norm after it still keeps those"
            " that the projection would have chosen.",
        ),
        Mistake(
            answers.by_shortcut,
            "Both paths agree, but on the shortcut's choice: the filters of conv2 must decide.",
        ),
        Mistake(
            answers.by_both,
            "Both decide here: the sizes on the two paths are added up. Notebook 05 weighs such"
            " scores; here the filters of conv2 decide alone.",
        ),
        Mistake(
            answers.first_on_shortcut,
            "The shortcut keeps its first channels: it has to keep the same ones as conv2.",
        ),
    ),
)

GO_ON = Exercise(
    id="04.9",
    title="Bug hunt: nothing is learned any more",
    solution=answers.prune_and_go_on,
    cases=cases.network_and_keep,
    use=cases.trained_on,
    praise="The optimiser knows the new weights, and the direction in which they were moving.",
    handed_out=Mistake(
        answers.old_optimizer,
        "After the surgery the weights don't move. Which tensors does the optimiser hold?",
    ),
    mistakes=(
        Mistake(
            answers.fresh_optimizer,
            "It learns, from a standstill: the momentum of the kept weights is lost.",
        ),
        Mistake(
            answers.without_momentum,
            "It learns, with an optimiser of other settings: it has no momentum at all.",
        ),
        Mistake(
            answers.moved_into_old,
            "You moved the weights and their momentum into the optimiser that you were given: the"
            " wide network still needs it. Return the new one that carry_optimizer makes.",
        ),
        Mistake(
            answers.not_pruned,
            "This is the wide network: it goes on learning because nothing was removed.",
        ),
    ),
)

EXERCISES = (
    *(CUT_CONV, CUT_NORM, PRUNE_CONV1, ZERO_CHANNELS, PRUNE_CONV2),
    *(KEEP_LARGEST, COLUMNS, COUPLED, GO_ON),
)

QUESTIONS = (
    Question(
        id="04.p1",
        asks="All weights of one filter are zero; what the next convolution reads from it is",
        choices=("zeros", "another constant", "values that vary with the image"),
    ),
    Question(
        id="04.p2",
        asks="Share of the parameters left when every group keeps half its filters",
        form=".1%",
        exact=True,
    ),
    Question(
        id="04.p3",
        asks="With the optimiser from before the surgery, the loss",
        choices=("falls", "stays where it is", "rises"),
    ),
)
