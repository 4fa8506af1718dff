"""What the trainer makes of arguments, as JSON; runs in the trainer's environment.

    python parsed_arguments.py <trainer_image> <<< '[["SFT", "adam_beta2", "0.98"], ...]'

The last line has a list of {"value": ...} or {"message": ..., "remedy": ...}, and the tables' entries that no argument
of TRL's matches.
"""

import json
import sys
from fnmatch import fnmatchcase

sys.path.insert(0, sys.argv[1])

import arguments  # type: ignore[import-not-found]
from failures import GivenUp  # type: ignore[import-not-found]
from trl import DPOConfig, SFTConfig

CONFIGURATIONS = {"SFT": SFTConfig, "DPO": DPOConfig}

outcomes = []
for method, name, text in json.load(sys.stdin):
    try:
        outcomes.append({"value": arguments.parse(CONFIGURATIONS[method], {name: text})[name]})
    except GivenUp as error:
        outcomes.append({"message": error.failure.message, "remedy": error.failure.remedy})
known = {name for configuration in CONFIGURATIONS.values() for name in arguments.known_fields(configuration)}
patterns = [*arguments.SAID_ELSEWHERE, *arguments.REFUSED]
unmatched = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in known)]
sys.stdout.write("\n" + json.dumps({"outcomes": outcomes, "unmatched": unmatched}))
