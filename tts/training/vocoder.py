"""Training of the vocoder: multi-scale mel distance first, adversaries later."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from vocos.discriminators import MultiPeriodDiscriminator, MultiResolutionDiscriminator
from vocos.loss import DiscriminatorLoss, FeatureMatchingLoss, GeneratorLoss, MelSpecReconstructionLoss

from codec.errors import UserError
from codec.spec import FrameSpec
from codec.vocoders.harmonic import HarmonicVocos
from tts.data.batches import VocoderBatch
from tts.training.augment import smeared
from tts.training.data import SpeechData
from tts.training.media import CASES, Item, Sound, compare_frames
from tts.training.module import StageModule
from tts.training.schedules import warmup_cosine

SECONDS = 6.0  # of a recording, to listen to


class VocoderModule(StageModule):
    """Generator against mel distances and, from step `adversarial_from` on, discriminators.

    The losses are the ``vocos`` package's: mel L1 at several resolutions (as in DAC, Kumar et al. 2023,
    arXiv 2306.06546), hinge GAN and feature matching. A waveform trained on mel distance alone is
    intelligible but buzzes: the phase is only right where windows overlap; the adversaries mend that. So does
    `HarmonicVocos`, without them; it learns to read the pitch, too, by cross entropy to that of the batch.

    Args:
        vocoder: frames -> waveform.
        features: waveform -> frames, the vocoder's input.
        periods: of the multi-period discriminator; empty for none.
        fft_sizes: of the multi-resolution discriminator, samples; empty for none.
        adversarial_from: first step with adversaries; negative for never.
        mel_scales: (window in samples, mel bands) of each mel distance, hop = window / 4.
        smear: share of the crops whose frames the vocoder gets smeared (`tts.training.augment.smeared`), so that it
            is used to what a decoder makes.
        mel_weight, feature_weight: weights in the generator's loss, next to the adversarial term's 1.
        lr, warmup, total, start: see `StageModule`.
    """

    part = "vocoder"
    monitor = "val/mel"

    def __init__(
        self,
        vocoder: nn.Module,
        features: nn.Module,
        *,
        periods: tuple[int, ...] = (2, 3, 5, 7, 11),
        fft_sizes: tuple[int, ...] = (2048, 1024, 512),
        adversarial_from: int = 0,
        mel_scales: tuple[tuple[int, int], ...] = (
            (64, 10),
            (128, 20),
            (256, 40),
            (512, 80),
            (1024, 100),
            (2048, 160),
        ),
        mel_weight: float = 15.0,
        feature_weight: float = 1.0,
        smear: float = 0.0,
        lr: float = 5e-4,
        warmup: int = 200,
        total: int = 100_000,
        start: str | None = None,
    ) -> None:
        super().__init__(lr=lr, warmup=warmup, total=total, start=start)
        self.automatic_optimization = False
        self.vocoder, self.features = self.begin(vocoder), features
        self.spec = cast(FrameSpec, features.spec)
        rate = self.spec.sample_rate
        self.mel_losses = nn.ModuleList(
            MelSpecReconstructionLoss(rate, n, n // 4, bands) for n, bands in mel_scales
        )
        self.discriminators = nn.ModuleList()
        if adversarial_from >= 0 and periods:
            self.discriminators.append(MultiPeriodDiscriminator(tuple(periods)))
        if adversarial_from >= 0 and fft_sizes:
            self.discriminators.append(MultiResolutionDiscriminator(tuple(fft_sizes)))
        self.adversarial_from = adversarial_from
        self.mel_weight, self.feature_weight, self.smear = mel_weight, feature_weight, smear
        self.gan_d, self.gan_g, self.matching = DiscriminatorLoss(), GeneratorLoss(), FeatureMatchingLoss()

    def configure_optimizers(self) -> Any:
        sets, totals = [self.vocoder.parameters()], [self.total]
        if len(self.discriminators):
            sets.append(self.discriminators.parameters())
            totals.append(max(1, self.total - self.adversarial_from))
        optimizers = [torch.optim.AdamW(p, self.lr, betas=(0.8, 0.9), weight_decay=0.01) for p in sets]
        schedules = [
            warmup_cosine(o, warmup=self.warmup, total=total)
            for o, total in zip(optimizers, totals, strict=True)
        ]
        return optimizers, schedules

    def generate(self, wav: Tensor, frames: Tensor, pitch: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, samples) -> the copy made from its frames, and the recording cut to the same length.

        Args:
            wav: recordings.
            frames: (B, T, D), theirs.
            pitch: (B, T) Hz that a harmonic vocoder is to speak at, its own reading where that is 0.
        """
        known: dict[str, Tensor] = {}
        if pitch is not None:
            assert isinstance(self.vocoder, HarmonicVocos)
            with torch.no_grad():
                read = self.vocoder.pitch(self.vocoder.audible(frames))
            known["pitch"] = torch.where(pitch > 0, pitch, read.float())
        if self.training and self.smear:
            frames = smeared(frames, self.smear)
        fake = self.vocoder(frames, **known)
        samples = min(fake.shape[1], wav.shape[1])
        return fake[:, :samples].float(), wav[:, :samples]

    def pitch_loss(self, frames: Tensor, pitch: Tensor | None) -> Tensor | None:
        """How badly a harmonic vocoder reads the pitch (B, T) Hz in the frames (B, T, D); None of another vocoder.

        Raises:
            UserError: the pitch is not told.
        """
        if not isinstance(self.vocoder, HarmonicVocos):
            return None
        if pitch is None:
            raise UserError(
                "HarmonicVocos learns to read the pitch, which the batches do not tell; set "
                "data.dataset.init_args.pitch: true"
            )
        with torch.autocast(frames.device.type, enabled=False):
            return self.vocoder.pitch.loss(self.vocoder.audible(frames), pitch)

    def mel_distance(self, fake: Tensor, real: Tensor) -> Tensor:
        """Mean over the scales of the L1 distance of log mels (natural log)."""
        with torch.autocast(real.device.type, enabled=False):
            return torch.stack([loss(fake, real) for loss in self.mel_losses]).mean()

    def training_step(self, batch: VocoderBatch, batch_idx: int) -> None:
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        adversarial = len(self.discriminators) > 0 and self.vocoder_step >= self.adversarial_from
        frames = self.features(batch.wav)
        reading = self.pitch_loss(frames, batch.pitch)
        fake, real = self.generate(batch.wav, frames, batch.pitch if reading is not None else None)
        if adversarial:
            loss = torch.stack(
                [self.discriminator_loss(d, real, fake.detach()) for d in self.discriminators]
            ).sum()
            self._update(optimizers[1], loss, self.discriminators)
            self.log("train/discriminator", loss, sync_dist=True)
        mel = self.mel_distance(fake, real)
        loss = self.mel_weight * mel
        if adversarial:
            self.discriminators.requires_grad_(False)  # they only judge here; a third of the work saved
            loss = loss + torch.stack([self.generator_loss(d, real, fake) for d in self.discriminators]).sum()
        if reading is not None:
            loss = loss + reading
            self.log("train/pitch", reading, sync_dist=True)
        self._update(optimizers[0], loss, self.vocoder)
        self.discriminators.requires_grad_(True)
        # that of the adversaries begins when they do
        for schedule in self._schedules()[: 1 + adversarial]:
            schedule.step()
        self.log("train/mel", mel, prog_bar=True, sync_dist=True)
        self.log("train/loss", loss, sync_dist=True)

    @property
    def vocoder_step(self) -> int:
        """Generator updates so far: Lightning's own count goes up with every optimizer."""
        return int(self._schedules()[0].last_epoch)

    def _schedules(self) -> list[Any]:
        """One per optimizer: Lightning gives a single one bare."""
        schedules = self.lr_schedulers()
        return schedules if isinstance(schedules, list) else [schedules]

    def _update(self, optimizer: Any, loss: Tensor, owner: nn.Module) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(owner.parameters(), 10.0)
        optimizer.step()

    def discriminator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Hinge loss, the mean over the sub-discriminators."""
        on_real, on_fake, _, _ = discriminator(real, fake)
        total, parts, _ = self.gan_d([x.float() for x in on_real], [x.float() for x in on_fake])
        loss: Tensor = total.squeeze() / len(parts)
        return loss

    def generator_loss(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Hinge loss and weighted feature matching, means over the sub-discriminators."""
        _, on_fake, features_real, features_fake = discriminator(real, fake)
        hinge, parts = self.gan_g([x.float() for x in on_fake])
        features_real = [[f.detach() for f in layer] for layer in features_real]
        matching = self.matching(features_real, features_fake)
        loss: Tensor = (hinge.squeeze() + self.feature_weight * matching.squeeze()) / len(parts)
        return loss

    def validation_step(self, batch: VocoderBatch, batch_idx: int) -> None:
        frames = self.features(batch.wav)
        fake, real = self.generate(batch.wav, frames)
        self.log(
            "val/mel", self.mel_distance(fake, real), prog_bar=True, batch_size=len(real), sync_dist=True
        )
        reading = self.pitch_loss(frames, batch.pitch)
        if reading is not None:
            self.log("val/pitch", reading, batch_size=len(real), sync_dist=True)

    def show(self, batch: VocoderBatch) -> list[Item]:
        """Recordings and the copies made of them, to see and to hear."""
        spec = self.spec
        items: list[Item] = []
        for i, wav in enumerate(self._recordings(batch)):
            fake, real = self.generate(wav[None], self.features(wav[None]))
            rows = {"recording": self.features(real)[0], "copy": self.features(fake)[0]}
            items += [
                compare_frames(f"frames{i}", rows, spec),
                Sound(f"recording{i}", real[0], spec.sample_rate),
                Sound(f"copy{i}", fake[0], spec.sample_rate),
            ]
        return items

    def _recordings(self, batch: VocoderBatch) -> list[Tensor]:
        """The beginnings of some validation recordings: the batch's crops are too short to listen to."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, SpeechData):
            return list(batch.wav[:CASES])
        samples = round(SECONDS * self.spec.sample_rate)
        cuts = data.dev_dataset.cuts[:CASES]
        return [torch.from_numpy(cut.load_audio()[0, :samples]).to(batch.wav) for cut in cuts]
