"""``python -m tutorial_lib``: train, sample, doctor, progress."""

import sys

if __name__ == "__main__":
    try:
        from tutorial_lib.cli import main  # loads torch, which takes seconds
        from tutorial_lib.cli.output import drop_what_cannot_be_printed
        from tutorial_lib.hardware import end_program
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    code = main()
    drop_what_cannot_be_printed()
    end_program(code)
