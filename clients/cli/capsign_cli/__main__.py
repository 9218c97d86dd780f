"""capsign: sign and verify through an agent, look at keys and evidence, and run everything on one
machine for development.

Exit codes: 0 done; 1 refused (it did not and will not happen, or does not verify); 2 wrong use; 3
unknown (resolve the intent); 4 unavailable (it did not happen, the same may be tried again). 130
and 141: ended by Ctrl-C, or by a reader of its output that went away; what was under way may have
happened.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Any

import click
from capsign_wire import std_streams
from capsign_wire.hardening import harden

from capsign_cli import __version__, failures, output
from capsign_cli.lazy_group import LazyGroup
from capsign_cli.output import QUIET

COMMANDS = {
    "dev": (
        "capsign_cli.dev.commands",
        "dev",
        "Run token, CA, adapters and agent on this machine: up, down, status.",
    ),
    "sign": ("capsign_cli.signing", "sign", "Sign a file through an agent."),
    "verify": ("capsign_cli.signing", "verify", "Verify a signature through an agent."),
    "handles": ("capsign_cli.signing", "handles", "What a socket may sign."),
    "keys": (
        "capsign_cli.keys",
        "keys",
        "Keys and their versions: list, show, create, rotate, suspend, destroy …",
    ),
    "policy": (
        "capsign_cli.policy",
        "policy",
        "The policy in force, and changing it: lint, diff, plan, apply, history, show.",
    ),
    "revoke": (
        "capsign_cli.revoke",
        "revoke",
        "Withdraw a handle, grant, workload, key or version, tenant or everything; list, lift.",
    ),
    "erase": (
        "capsign_cli.erase",
        "erase",
        "Destroy for good what ties the log to the content that a tenant signed: tenant, list.",
    ),
    "rollout": (
        "capsign_cli.rollout",
        "rollout",
        "Move a key to a new version or algorithm, step by step, and back.",
    ),
    "approvals": (
        "capsign_cli.approvals",
        "approvals",
        "Acts that need two people: list, show, approve, reject, call-off.",
    ),
    "inventory": (
        "capsign_cli.inventory",
        "inventory",
        "Everything that there is to sign with; --html writes a page.",
    ),
    "drift": (
        "capsign_cli.drift",
        "drift",
        "What differs from what is expected; exit code 1 if anything does.",
    ),
    "log": ("capsign_cli.log_commands", "log", "The evidence log: verify, export."),
    "audit": (
        "capsign_cli.audit.commands",
        "audit",
        "Who signed what, when: from a copy of the store or from tiles, with no network.",
    ),
    "inject": (
        "capsign_cli.inject",
        "inject",
        "Put the agent into Kubernetes manifests, as the webhook would.",
    ),
    "completion": (
        "capsign_cli.completion",
        "completion",
        "Print completion code for bash, zsh or fish.",
    ),
}
"""Where each command is, and its line in the help: `capsign --help` imports none of them."""


class Commands(LazyGroup):
    """The commands of `capsign`. It knows when a reader of their output has gone."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click's answer to it is exit code 1, which means "refused" here
            raise output.CutOffError from None
        except SystemExit as ended:  # and rich's
            if isinstance(ended.__context__, BrokenPipeError):
                raise output.CutOffError from None
            raise


@click.group(
    cls=Commands,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="capsign")
def capsign() -> None:
    """Sign without holding a key.

    Exit codes: 0 done, 1 refused, 2 wrong use, 3 unknown (resolve the intent), 4 unavailable (may
    be tried again), 130 and 141 ended by Ctrl-C or a closed pipe (it may have happened).
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Ends the process with one of the exit codes above. An error is one sentence,
    only a defect a traceback.
    """
    std_streams.hold(answers=True)
    # a responder's key, and those that `dev up` makes, pass through this memory
    harden(traced=True)
    given = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("GRPC_VERBOSITY", QUIET)
    output.start(given)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the dash of a checkpoint is no reason to call a good log bad.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # click gives back the code of a command that raised its `Exit`, and None for any other
        result = capsign.main(given, prog_name="capsign", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.Abort as ended:
        code = _failed(
            KeyboardInterrupt() if isinstance(ended.__cause__, KeyboardInterrupt) else ended
        )
    except Exception as error:
        code = _failed(error)
    sys.exit(code)


def _failed(error: BaseException) -> int:
    """Say what went wrong; returns the exit code. A defect of ours shows where it is, and leaves
    open what has happened.
    """
    if isinstance(error, click.ClickException) and not output.is_json():
        error.show()
        return failures.USAGE
    if isinstance(error, click.Abort):
        click.echo(err=True)  # the cursor stands behind the question
    output.give_up()
    told = failures.told(error)
    if told is None:
        traceback.print_exception(error)
        return failures.UNKNOWN
    if told.message:
        failures.show(told)
    return told.exit_code


if __name__ == "__main__":
    main()
