"""The exercises and predictions of notebook 06, iterative pruning."""

from __future__ import annotations

from course_lib.lessons import iterative_answers as answers
from course_lib.lessons import iterative_cases as cases
from course_lib.lessons.compare import whole
from course_lib.lessons.exercise import Exercise, Mistake
from course_lib.lessons.prediction import Question

EXERCISES = (
    Exercise(
        "06.1",
        "How many rounds reach a fifth?",
        answers.rounds_needed,
        lambda: [(0.5, 0.2), (0.05, 0.2), (0.1, 0.05), (0.5, 0.25)],
        (
            Mistake(
                answers.rounds_of_filters,
                "That many rounds leave this share of the filters: a weight belongs to a filter of"
                " its own layer and reads a channel of the layer before, and both shrink.",
            ),
            Mistake(
                answers.rounds_without_compounding,
                "You took the same number away in every round: each round takes its fraction of"
                " what is left, and parameters shrink with filters and with channels.",
            ),
            Mistake(
                answers.rounds_floor,
                "After that many rounds there are still too many parameters: a part of a round"
                " must count as a whole one.",
            ),
            Mistake(
                answers.rounds_until_below,
                'You went on where exactly the share was left: "at most" has it in.',
            ),
        ),
        "16 rounds of 5 % are what the laptop preset takes.",
        compare=whole,
    ),
    Exercise(
        "06.2",
        "Widths after r rounds",
        answers.widths_after,
        lambda: [
            ({"conv1": 16}, 0.05, 1, 2),
            ({"conv1": 16, "layer1.0.conv1": 64}, 0.05, 16, 2),
            ({"conv1": 10, "layer1.0.conv1": 12}, 0.05, 6, 2),
            ({"conv1": 4, "layer1.0.conv1": 8}, 0.5, 2, 2),
            ({"conv1": 16}, 0.5, 3, 4),
            ({"conv1": 5}, 0.5, 1, 2),
        ],
        (
            Mistake(answers.widths_no_floor, "A layer fell below the floor: no layer keeps fewer."),
            Mistake(
                answers.widths_truncated,
                "You cut the decimals off: round to the nearest whole number, half up.",
            ),
            Mistake(
                answers.widths_linear,
                "You took the fraction of the first width each time: what is left shrinks by the"
                " same factor each round.",
            ),
            Mistake(
                answers.widths_drifting,
                "You rounded after every round, so rounding errors add up and small layers stall:"
                " count from the widths at the start.",
            ),
        ),
        "Small layers neither stall nor drift.",
    ),
    Exercise(
        "06.3",
        "The gate's decision",
        answers.verdict,
        lambda: [
            (0.8125, 0.9375, 0.0625, 1, 1),
            # Exactly at the limit: sixteenths are exact in binary and in the four digits shown.
            (0.875, 0.9375, 0.0625, 1, 1),
            (0.876, 0.9375, 0.0625, 1, 1),
            (0.8125, 0.9375, 0.0625, 2, 1),
            (0.9375, 0.9375, 0.0625, 1, 1),
            (0.9, 0.9375, 0.0625, 2, 1),
            (0.8125, 0.9375, 0.0625, 1, 0),
            (0.8125, 0.9375, 0.0625, 1, 2),
            (0.96, 1.0, 0.02, 1, 1),
            (0.98, 0.875, 0.0625, 1, 1),
            (0.8125, 0.9375, 0.0625, 2, 2),
        ],
        (
            Mistake(
                answers.absolute,
                "You compared with a fixed 95 %: the gate compares with the full network's"
                " accuracy, whatever that is.",
            ),
            Mistake(
                answers.raised,
                "You asked for more than the full network's accuracy: the tolerance says how far"
                " below it a pruned network may lie.",
            ),
            Mistake(
                answers.no_tolerance,
                "You asked for the full network's accuracy itself: leave out the tolerance, and"
                " half of all harmless rounds fail by the luck of the images.",
            ),
            Mistake(
                answers.strictly_within,
                "You failed a network that lies exactly at the limit: that passes, so >=, not >.",
            ),
            Mistake(
                answers.share_of_full,
                "You took the tolerance as a share of the full network's accuracy: it is subtracted"
                " from it, in points.",
            ),
            Mistake(
                answers.never_again,
                "You rolled back at once: up to `retries` further fine-tunings come first.",
            ),
            Mistake(
                answers.for_ever,
                "You never roll back: after 1 + retries fine-tunings it is enough.",
            ),
            Mistake(
                answers.one_try_less,
                "You gave up one fine-tuning too early: `tried` counts the first one as well,"
                " which isn't a retry.",
            ),
        ),
        "A relative gate works for any task, hard or easy.",
    ),
    Exercise(
        "06.4",
        "One round",
        answers.one_round,
        lambda: [*(cases.stand_ins(good) for good in (1, 2, 3, 0)), cases.stand_ins(3, most=3)],
        (
            Mistake(
                answers.judged_untuned,
                "You judged the network before it was fine-tuned: nearly every network fails right"
                " after surgery.",
            ),
            Mistake(
                answers.not_rolled_back,
                "The round failed and you handed on its network: roll back means that the network"
                " from before the cut is kept.",
            ),
            Mistake(
                answers.cut_again,
                "You cut again before the second fine-tuning: a network that hasn't recovered gets"
                " more training, not less width.",
            ),
            Mistake(
                answers.one_try,
                'You treated "fine-tune again" as a failure: it asks for one more fine-tuning of'
                " the same candidate, and a new verdict.",
            ),
        ),
        "This is the loop's body; the rest is repetition.",
    ),
    Exercise(
        "06.5",
        "How fast did it recover?",
        answers.recovery_batches,
        cases.curves,
        (
            Mistake(
                answers.since_the_beginning,
                "You counted from the beginning of all training: count from the surgery, the"
                " phase's first point.",
            ),
            Mistake(answers.points_counted, "You counted points of the curve: count batches."),
            Mistake(
                answers.after_the_surgery,
                "You left out the point at the surgery: a network that never fell below the level"
                " has recovered after 0 batches.",
            ),
            Mistake(
                answers.any_phase,
                "You looked at other phases too: the full network reaches the level long before"
                " the surgery.",
            ),
            Mistake(
                answers.stays_above,
                "You looked for where the curve stays above the level: what is asked for is the"
                " first point that reaches it, whatever follows.",
            ),
            Mistake(
                answers.phases_that_begin_so,
                'You counted points of "round 10", which is another phase than "round 1": compare'
                " the whole name, at every point.",
            ),
            Mistake(
                answers.above_only,
                "You waited until the level was exceeded: reaching it is enough.",
            ),
        ),
        "With this, any learning curve tells how much fine-tuning was needed.",
    ),
    Exercise(
        "06.6",
        "Bug hunt: it trains, and nothing improves",
        answers.cut_and_step,
        cases.hunts,
        (
            Mistake(
                answers.fresh_momentum,
                "It trains, but the new optimiser begins without the old one's momentum: let the"
                " course's function carry all of it across the surgery.",
            ),
            Mistake(
                answers.wide_network_stepped,
                "You trained the wide network and cut afterwards: the narrow network should take"
                " the step.",
            ),
        ),
        "After each surgery there are new parameters, and the optimiser must hold those.",
        use=cases.bias_after,
        handed_out=Mistake(
            answers.old_parameters, "The network it returns is exactly as the surgery left it."
        ),
    ),
    Exercise(
        "06.7",
        "Bug hunt: the result that is too good",
        answers.chosen_and_reported,
        cases.reports,
        (
            Mistake(
                answers.best_on_test_that_passed,
                "Only passed rounds are considered now, but the test set still chooses between"
                " them: never report the number that you chose by.",
            ),
            Mistake(
                answers.best_on_validation,
                "You chose the round that is best on the validation set, which is allowed, but"
                " not the rule of this loop: it keeps the smallest network that passed.",
            ),
            Mistake(
                answers.validation_reported,
                "You reported the accuracy that the gate looked at: report the test accuracy,"
                " which chose nothing.",
            ),
            Mistake(
                answers.last_of_all,
                "You kept a round that failed the gate: keep the last one that passed.",
            ),
        ),
        "Validation images choose, test images report, once.",
        handed_out=Mistake(
            answers.best_on_test, "It still picks the round by the number that it then reports."
        ),
    ),
)

QUESTIONS = (
    Question(
        "06.p1",
        "Accuracy right after 15 % of every layer's filters are removed",
        form=".0%",
        close=0.1,
    ),
    Question(
        "06.p2",
        "More accurate at equal size and equal fine-tuning",
        choices=("one cut", "eight rounds", "no difference"),
    ),
    Question(
        "06.p3",
        "Batches until nine of ten rounds of the laptop runs have recovered",
        low=0,
        high=25,
        form=".0f",
        close=5,
        exact=True,
    ),
)
