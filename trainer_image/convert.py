"""Convert a model in Hugging Face's format to one GGUF file, by llama.cpp's own converter.

    python convert.py --model merged --output model.gguf --precision q8_0

The image has the converter as it is in llama.cpp's repository (install-converter); it knows each architecture and each
tokenizer by name, and refuses what it does not know.
"""

import argparse
import os
import runpy
import sys
from pathlib import Path

from child import subordinate

DIRECTORY_VARIABLE = "LLAMA_CPP_DIRECTORY"
DIRECTORY = "/opt/llama.cpp"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="directory of the model, safetensors")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--precision", choices=("f16", "q8_0"), required=True, help="of the weights, llama.cpp's name")
    arguments = parser.parse_args()
    directory = Path(os.environ.get(DIRECTORY_VARIABLE, DIRECTORY))
    converter = directory / "convert_hf_to_gguf.py"
    if not converter.is_file():
        sys.exit(f"{converter} is missing: this image was built without llama.cpp's converter")
    subordinate()
    sys.argv = [str(converter), str(arguments.model), "--outfile", str(arguments.output)]
    sys.argv += ["--outtype", arguments.precision]
    sys.path.insert(0, str(directory))
    runpy.run_path(str(converter), run_name="__main__")


if __name__ == "__main__":
    main()
