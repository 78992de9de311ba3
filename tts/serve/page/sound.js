"use strict";
// Sound as it comes: played, kept, and made into files. Times are seconds of the speech.

const RATE = 24000;

class Player {
  // Plays pieces one after another, from the first on; tells where it is.
  constructor(context) {
    this.context = context;
    this.pieces = []; // {from, at, seconds, source}: place in the speech, and on the context's clock
    this.samples = [];
    this.seconds = 0;
  }

  add(samples) {
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    buffer.getChannelData(0).set(samples);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    const last = this.pieces.at(-1);
    const at = Math.max(this.context.currentTime + 0.05, last ? last.at + last.seconds : 0);
    source.start(at);
    this.pieces.push({from: this.seconds, at, seconds: buffer.duration, source});
    this.samples.push(samples);
    this.seconds += buffer.duration;
  }

  position() {
    const now = this.context.currentTime;
    const piece = this.pieces.findLast((one) => one.at <= now);
    return piece ? piece.from + Math.min(now - piece.at, piece.seconds) : 0;
  }

  get playing() {
    const last = this.pieces.at(-1);
    return Boolean(last) && this.context.currentTime < last.at + last.seconds;
  }

  stop() {
    for (const piece of this.pieces) piece.source.stop();
    this.pieces = [];
  }
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function fromPcm(bytes) {
  const whole = new Int16Array(bytes.buffer, 0, bytes.length >> 1);
  return Float32Array.from(whole, (value) => value / 32768);
}

function wavFile(pieces) {
  const count = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const letters = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  letters(0, "RIFF"); view.setUint32(4, 36 + 2 * count, true); letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, RATE, true); view.setUint32(28, 2 * RATE, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  letters(36, "data"); view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const piece of pieces) {
    for (const value of piece) {
      view.setInt16(at, Math.max(-1, Math.min(1, value)) * 32767, true);
      at += 2;
    }
  }
  return new Blob([view], {type: "audio/wav"});
}

// What a browser can decode, a recording of its own say, as a wav of a minute at most.
async function asWav(blob) {
  const context = new OfflineAudioContext(1, 60 * RATE, RATE);
  const source = context.createBufferSource();
  source.buffer = await context.decodeAudioData(await blob.arrayBuffer());
  source.connect(context.destination);
  source.start();
  const made = await context.startRendering();
  return wavFile([made.getChannelData(0).slice(0, Math.ceil(source.buffer.duration * RATE))]);
}

function clock(seconds, point) {
  const whole = Math.round(1000 * seconds);
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  return `${two(whole / 3600000)}:${two(whole / 60000 % 60)}:${two(whole / 1000 % 60)}${point}`
    + String(whole % 1000).padStart(3, "0");
}

// Cues of at most two lines of 42 letters, cut between words.
function cues(words) {
  const made = [];
  for (const word of words) {
    const last = made.at(-1);
    if (last && last.sentence === word.sentence && last.text.length + word.word.length < 84) {
      last.text += " " + word.word;
      last.end = word.end;
    } else {
      made.push({text: word.word, start: word.start, end: word.end, sentence: word.sentence});
    }
  }
  return made;
}

function subtitles(words, kind) {
  const point = kind === "srt" ? "," : ".";
  const text = (value) => kind === "srt" ? value : value.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const blocks = cues(words).map((cue, n) => (kind === "srt" ? `${n + 1}\n` : "")
    + `${clock(cue.start, point)} --> ${clock(Math.max(cue.end, cue.start + 0.001), point)}\n${text(cue.text)}\n`);
  return new Blob([(kind === "vtt" ? "WEBVTT\n\n" : "") + blocks.join("\n")], {type: "text/plain"});
}
