"""The second kind of frames goes through the whole chain but the LM, which knows only tokens."""

import pytest
import torch

from codec.features.encodec import ENCODEC, EncodecLatents
from codec.spec import TokenSpec
from codec.tokenizer.fsq import FSQ
from codec.tokenizer.model import Tokenizer
from codec.vocoders.encodec import EncodecVocoder
from tts.acoustic.decoder import FlowDecoder
from tts.acoustic.dit import DiT


@pytest.mark.parametrize("patch", [1, 3])
def test_wav_to_tokens_to_wav(patch: int) -> None:
    spec = TokenSpec(frames=ENCODEC, frames_per_token=3, codes=27)
    assert spec.rate == 25
    latents, vocoder = EncodecLatents(), EncodecVocoder()
    tokenizer = Tokenizer(
        FSQ(16, (3, 3, 3)),
        symbols=9,
        dim=16,
        heads=2,
        layers=1,
        reader_layers=1,
        strides=(3,),
        bands=8,
        mean=0.0,
        std=1.0,
        frames=ENCODEC,
    ).eval()
    decoder = FlowDecoder(DiT(spec, dim=16, layers=2, heads=2, hidden=32, patch=patch)).eval()
    assert tokenizer.spec == decoder.spec == spec
    for layer in (decoder.dit.frames_out, decoder.dit.final, decoder.dit.modulate):
        torch.nn.init.normal_(layer.weight, std=0.3)  # as built they are 0, and the velocity with them

    wav = torch.randn(1, 24_000)
    frames = latents(wav)
    decoder.std.copy_(frames.flatten(0, 1).std(0))
    tokens, lens = tokenizer.encode(frames)
    assert lens.tolist() == [25] and tokens.shape == (1, 25)

    prompt = (frames[0, :30], tokens[0, :10])
    noise = torch.randn(1, 45, 128)
    (whole,) = decoder.decode([prompt], [tokens[0, 10:]], [noise[0]], steps=2, chunk=5)
    state = decoder.start(frames[:, :30], tokens[:, :10], steps=2)
    chunks = [
        decoder.decode_chunk(state, tokens[:, 10 + 5 * i : 15 + 5 * i], noise[:, 15 * i : 15 * (i + 1)])
        for i in range(3)
    ]
    torch.testing.assert_close(torch.cat(chunks, dim=1)[0], whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole, decoder.unscale(noise[0]))

    spoken = vocoder(whole[None])
    assert spoken.shape == (1, 45 * 320)
    # EnCodec's decoder looks at no later frame, so a stream of frames speaks what all of them speak
    torch.testing.assert_close(vocoder(chunks[0]), spoken[:, : 15 * 320], rtol=1e-4, atol=1e-6)
