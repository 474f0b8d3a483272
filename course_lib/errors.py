"""The one exception a user should ever see."""


class CourseError(ValueError):
    """Something the user can fix; the message is one sentence that names the thing and the fix.

    The command line prints the message and ends with status 2, without a traceback.
    """
