"""Backend Axolotl: what of a FineTuneJob its trainer can't do is refused rather than ignored."""

from finetune_operator.resources.common import Rule, rule

# Of a FineTuneJob's spec.
JOB_RULES: tuple[Rule, ...] = (
    rule(
        "self.backend != 'Axolotl' || !self.training.packing",
        "Axolotl keeps packed conversations apart by Flash Attention, which its image lacks: set packing to false",
        field_path=".training.packing",
    ),
    rule(
        "self.backend != 'Axolotl' || !has(self.training.arguments) || size(self.training.arguments) == 0",
        "arguments are TRL's, which Axolotl is not told: remove them, or set backend Unsloth or HuggingFace",
        field_path=".training.arguments",
    ),
    rule(
        "self.backend != 'Axolotl' || self.method == 'SFT' || !has(self.training.neftuneNoiseAlpha)",
        "Axolotl adds noise to conversations (SFT) alone: remove neftuneNoiseAlpha",
        field_path=".training.neftuneNoiseAlpha",
    ),
)
