"""capsign: sign and verify through an agent, look at keys and evidence, and run everything on one machine for development.

Exit codes: 0 done; 1 refused (it did not and will not happen, or does not verify); 2 wrong use; 3 unknown (resolve the intent);
4 unavailable (it did not happen, the same may be tried again).
"""

from __future__ import annotations

import sys
from importlib import import_module

import click

from capsign_cli import failures

COMMANDS = {
    "dev": ("capsign_cli.dev.commands", "dev", "Run token, CA, adapters and agent on this machine: up, down, status."),
    "sign": ("capsign_cli.signing", "sign", "Sign a file through an agent."),
    "verify": ("capsign_cli.signing", "verify", "Verify a signature through an agent."),
    "handles": ("capsign_cli.signing", "handles", "What a socket may sign."),
    "keys": ("capsign_cli.keys", "keys", "Keys and their versions: list."),
    "revoke": ("capsign_cli.revoke", "revoke", "Withdraw a handle, grant, workload, key, tenant or everything."),
    "log": ("capsign_cli.evidence", "log", "The evidence log: verify."),
    "inject": ("capsign_cli.inject", "inject", "Put the agent into Kubernetes manifests, as the webhook would."),
    "completion": ("capsign_cli.completion", "completion", "Print completion code for bash, zsh or fish."),
}
"""Where each command is, and its line in the help: `capsign --help` imports none of them."""


class Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="capsign", prog_name="capsign")
def capsign() -> None:
    """Sign without holding a key.

    Exit codes: 0 done, 1 refused, 2 wrong use, 3 unknown (resolve the intent), 4 unavailable (may be tried again).
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Ends the process with one of the exit codes above; an error is one clear sentence, never a traceback."""
    try:
        capsign.main(arguments, prog_name="capsign", standalone_mode=False)
        code = 0
    except click.exceptions.Exit as ended:
        code = ended.exit_code
    except click.ClickException as wrong:
        wrong.show()
        code = failures.USAGE
    except click.Abort:
        code = failures.REFUSED
    except BrokenPipeError:
        code = failures.REFUSED
    except Exception as error:
        told = failures.told(error)
        if told is None:
            raise
        failures.show(told)
        code = told.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
