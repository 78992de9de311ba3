"""Fine-tuning: a model that exists, adapted to somebody's recordings, and kept only if it got better.

    python -m tts.tune --manifest me/metadata.jsonl --out runs/me

``plan.py`` says how long and with what weights, ``run.py`` trains and collects, ``verdict.py`` measures before and
after and decides. The tokenizer and the vocoder stay as they are: tokens keep their meaning, and so do saved voices.
"""
