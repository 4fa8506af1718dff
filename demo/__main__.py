"""`make demo` and `make demo-down`.

python -m demo run     tell the story
python -m demo up      only the cluster, the images and the chart
python -m demo down    undo
"""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx2
from openai import OpenAIError

from demo import install, target
from demo.console import Narrator
from demo.kubectl import DemoError
from demo.story import Story, Teller, closing_rows, faces
from local_cluster.console import Refused
from local_cluster.layout import cache_root


def main(arguments: list[str]) -> int:
    """Exit code 1 with one clear line where something is missing or did not happen."""
    narrator = Narrator()
    verb = arguments[0] if arguments else "run"
    try:
        match verb:
            case "run":
                run(narrator)
            case "up":
                prepare(narrator)
            case "down":
                target.take_down(target.choose(), narrator)
            case _:
                narrator.say(str(__doc__))
                return 2
    except (DemoError, Refused) as error:
        return failed(f"error: {error}")
    except (OpenAIError, httpx2.HTTPError, subprocess.SubprocessError) as error:
        return failed(f"error: {error!r}; run the same command again, it goes on where it can")
    except KeyboardInterrupt:
        narrator.say("interrupted; run the same command again to go on")
        return 130
    return 0


def failed(message: str) -> int:
    """Whoever reads only the errors, or the end of them, finds out."""
    print(message, file=sys.stderr, flush=True)
    return 1


def prepare(narrator: Narrator) -> target.Target:
    """A cluster with the product in it."""
    with narrator.stage("Cluster and images"):
        chosen = target.bring_up(target.choose(), narrator)
    with narrator.stage("Install the Helm chart"):
        install.install_chart(chosen, narrator)
        install.make_person(chosen.kubectl, install.PERSON)
    return chosen


def run(narrator: Narrator) -> Story:
    """The whole story, then its summary."""
    chosen = prepare(narrator)
    with ExitStack() as stack:
        with narrator.stage("Ratings database"):
            install.start_afresh(chosen)
            conversations = install.fill_ratings(chosen, narrator)
        with narrator.stage("Base model, trained from scratch"):
            install.train_base_model(chosen, narrator, conversations)
        gateway_url = stack.enter_context(chosen.kubectl.port_forward(f"{install.RELEASE}-gateway"))
        api_url = stack.enter_context(chosen.kubectl.port_forward(f"{install.RELEASE}-api"))
        story = Teller(chosen, narrator, conversations, gateway_url, api_url).tell()
    narrator.table("What happened", ("", ""), [(title, value) for title, value in closing_rows(story)])
    stages = narrator.durations_seconds
    rows = [(title, f"{seconds:.1f}") for title, seconds in stages.items()]
    narrator.table("Time of each stage", ("stage", "seconds"), [*rows, ("all", f"{sum(stages.values()):.1f}")])
    (cache_root() / "demo-durations.json").write_text(json.dumps(stages, indent=1))
    look_around(chosen, narrator)
    return story


def look_around(chosen: target.Target, narrator: Narrator) -> None:
    """The commands that lead on from here, whole, so that they can be copied."""
    narrator.say("Look around")
    if chosen.kubectl.kubeconfig:
        narrator.command(f"export KUBECONFIG={chosen.kubectl.kubeconfig}")
    if chosen.name == "local":
        narrator.command(f"export PATH={Path(chosen.kubectl.program).parent}:$PATH")
    for what, command in faces():
        narrator.say(f"  {what}:")
        narrator.command(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
