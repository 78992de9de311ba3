"""How to tune, by how much speech there is."""

from dataclasses import dataclass, replace

MINUTES = 60.0


@dataclass(frozen=True)
class Plan:
    """How the LM and the acoustic decoder are tuned.

    Attributes:
        lora: rank of the adapters; 0 for all weights.
        lr: peak learning rate.
        lm_steps, acoustic_steps: optimizer steps at most; training ends early where held-out loss stops falling.
        replay: seconds of base data for every second of the new, where base data is at hand.
    """

    lora: int
    lr: float
    lm_steps: int
    acoustic_steps: int
    replay: float = 1.0

    def steps(self, stage: str) -> int:
        """Of the stage, "lm" or "acoustic"."""
        return self.lm_steps if stage == "lm" else self.acoustic_steps

    def changed(
        self, *, lora: int | None = None, steps: int | None = None, lr: float | None = None
    ) -> "Plan":
        """With what the user says otherwise; another kind of weights brings that kind's learning rate."""
        plan = self
        if lora is not None:
            kind = FULL if lora == 0 else SHORT
            plan = replace(plan, lora=lora, lr=plan.lr if bool(lora) == bool(plan.lora) else kind.lr)
        if steps is not None:
            plan = replace(plan, lm_steps=steps, acoustic_steps=steps)
        return plan if lr is None else replace(plan, lr=lr)


SHORT = Plan(lora=16, lr=5e-4, lm_steps=120, acoustic_steps=300)
MIDDLE = Plan(lora=32, lr=1e-3, lm_steps=400, acoustic_steps=1000)
FULL = Plan(lora=0, lr=2e-4, lm_steps=2000, acoustic_steps=5000, replay=0.5)


def plan_for(seconds: float) -> Plan:
    """For so many seconds of speech to train on.

    Up to ten minutes, adapters of low rank and few steps: all weights would learn the sentences by heart. Up to two
    hours, wider ones. Beyond, all weights, at a fifth of the rate that trained them.
    """
    if seconds < 10 * MINUTES:
        return SHORT
    return MIDDLE if seconds < 120 * MINUTES else FULL
