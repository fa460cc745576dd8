"""`metaformer-slim FILE`: the verb `serve` of metaformer, for exported classifiers."""

import sys

import typer

from metaformer.cli_serve import serve
from metaformer.slips import sentence

FILES = "A classifier's .onnx file, or .xml where OpenVINO is installed. Several: NAME=FILE names them."
HELP = "Answer images over HTTP, with a page to try it: metaformer-slim first.onnx, then open http://127.0.0.1:8000"


def main() -> None:
    """A user's mistake is one sentence and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=HELP)(serve)
    command = typer.main.get_command(app)
    command.params[0].metavar, command.params[0].help = "FILE...", FILES
    try:
        sys.exit(command(standalone_mode=False))
    except (ValueError, OSError, typer.TyperException) as error:
        if said := sentence(error):
            sys.stderr.write(f"metaformer-slim: {said}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
