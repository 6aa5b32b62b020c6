"""What all foreseen failures of a study have in common."""


class StudyError(RuntimeError):
    """Something foreseen went wrong: the message is a sentence for the user, `exit_code` what the command ends with."""

    exit_code = 1
