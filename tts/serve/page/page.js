"use strict";
const $ = (id) => document.getElementById(id);
const canvas = $("mel").querySelector("canvas");
const state = {context: null, player: null, abort: null, words: [], columns: 0, total: 0, model: "", urls: []};

// ---------------------------------------------------------------------------------------------- the server

async function ask(path, options = {}) {
  const key = $("key").value.trim();
  const headers = {...options.headers, ...(key && {Authorization: `Bearer ${key}`})};
  const answer = await fetch(path, {...options, headers});
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  throw new Error(body?.error?.message ?? `the server answered ${answer.status}`);
}

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) yield JSON.parse(part.slice(6));
  }
}

function say(id, message, bad = false) {
  $(id).textContent = message;
  $(id).classList.toggle("bad", bad);
}

// ---------------------------------------------------------------------------------------------- speaking

async function speak() {
  stop();
  clear();
  const began = performance.now();
  state.context ??= new AudioContext({sampleRate: RATE});
  state.context.resume();
  const player = state.player = new Player(state.context);
  const abort = state.abort = new AbortController();
  $("stop").disabled = false;
  say("status", "…");
  try {
    const answer = await ask("/v1/audio/speech", {
      method: "POST",
      signal: abort.signal,
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({
        model: state.model, input: $("text").value, voice: $("voice").value, speed: Number($("speed").value),
        seed: Number($("seed").value), language: $("language").value, response_format: "pcm",
        stream_format: "sse", include: ["words", "mel", "reading"],
      }),
    });
    $("result").hidden = false;
    let sentence = 0, heard = 0;
    for await (const event of events(answer)) {
      if (event.type === "speech.words.delta") addWords(event.words, sentence);
      else if (event.type === "speech.mel.delta") paint(fromBase64(event.frames), event.bands);
      else if (event.type === "speech.audio.delta") {
        const sound = fromPcm(fromBase64(event.audio));
        if (!sound.length) continue;
        player.add(sound);
        heard ||= performance.now();
        say("status", `first sound after ${((heard - began) / 1000).toFixed(1)} s`);
      } else if (event.type === "speech.sentence.done") addReading(event, sentence++);
      else if (event.type === "error") throw new Error(event.error.message);
    }
    const taken = (performance.now() - began) / 1000;
    say("status", `${player.seconds.toFixed(1)} s of speech in ${taken.toFixed(1)} s, `
      + `the first sound after ${((heard - began) / 1000).toFixed(1)} s`);
    offer(player);
  } catch (error) {
    if (error.name === "AbortError") say("status", "stopped");
    else say("status", error.message, true);
  } finally {
    if (state.abort === abort) {
      state.abort = null;
      if (!player.playing) $("stop").disabled = true;
    }
  }
}

function stop() {
  state.abort?.abort();
  state.player?.stop();
  $("again").pause();
  $("stop").disabled = true;
}

function clear() {
  state.words = [];
  state.columns = state.total = 0;
  $("words").replaceChildren();
  $("reading").replaceChildren();
  $("again").hidden = $("downloads").hidden = $("head").hidden = true;
  canvas.width = 400;
  for (const url of state.urls.splice(0)) URL.revokeObjectURL(url);
}

function offer(player) {
  const files = {
    wav: wavFile(player.samples), srt: subtitles(state.words, "srt"), vtt: subtitles(state.words, "vtt"),
  };
  for (const [id, file] of Object.entries(files)) {
    $(id).href = URL.createObjectURL(file);
    state.urls.push($(id).href);
  }
  $("again").src = $("wav").href;
  $("again").hidden = $("downloads").hidden = false;
}

// ---------------------------------------------------------------------------------------------- showing

function addWords(words, sentence) {
  for (const word of words) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = word.word;
    const one = {...word, sentence, button};
    button.addEventListener("click", () => {
      if ($("again").hidden) return;
      state.player?.stop();
      $("again").currentTime = one.start;
      $("again").play();
    });
    state.words.push(one);
    $("words").append(button, " ");
  }
}

function addReading(event, sentence) {
  // times that were aligned to the whole sentence are more exact than those told on the way
  const own = state.words.filter((word) => word.sentence === sentence);
  if (own.length === event.words.length) own.forEach((word, i) => Object.assign(word, event.words[i]));
  const item = document.createElement("li");
  const line = (label, text) => {
    const code = document.createElement("code");
    code.textContent = `${label} ${text}`;
    return code;
  };
  const verdict = document.createElement("span");
  verdict.className = event.problems.length ? "bad" : "";
  verdict.textContent = event.problems.length
    ? `may be said wrongly: ${event.problems.join("; ")}`
    : `reads well, ${Math.round(100 * event.error)} % of the phonemes differ`;
  item.append(event.text, line("wanted", event.phonemes), line("read  ", event.read), verdict);
  $("reading").append(item);
}

function shade(value) { // dark blue over teal to light yellow
  const stops = [[11, 16, 36], [22, 88, 120], [84, 178, 150], [252, 244, 190]];
  const place = Math.min(value / 256 * 3, 2.999), low = Math.floor(place), share = place - low;
  return stops[low].map((from, i) => from + share * (stops[low + 1][i] - from));
}
const SHADES = Array.from({length: 256}, (_, value) => shade(value));

function paint(frames, bands) {
  const count = frames.length / bands;
  const pen = canvas.getContext("2d", {willReadFrequently: true});
  if (state.columns + count > canvas.width || canvas.height !== bands) {
    const kept = state.columns ? pen.getImageData(0, 0, state.columns, bands) : null;
    canvas.width = Math.max(400, Math.ceil(1.5 * (state.columns + count)));
    canvas.height = bands;
    if (kept) pen.putImageData(kept, 0, 0);
  }
  const image = pen.createImageData(count, bands);
  for (let t = 0; t < count; t++) {
    for (let band = 0; band < bands; band++) {
      const at = 4 * ((bands - 1 - band) * count + t);
      image.data.set(SHADES[frames[t * bands + band]], at);
      image.data[at + 3] = 255;
    }
  }
  pen.putImageData(image, state.columns, 0);
  state.columns += count;
  canvas.style.width = `${100 * canvas.width / state.columns}%`;
}

function follow() {
  const again = $("again"), live = state.player?.playing;
  const shown = live || (!again.hidden && (!again.paused || again.currentTime > 0));
  const at = live ? state.player.position() : again.currentTime;
  const total = state.player?.seconds ?? 0;
  $("head").hidden = !shown || !total;
  $("head").style.left = `${total ? 100 * at / total : 0}%`;
  const now = shown ? state.words.findLast((word) => word.start <= at && at < word.end + 0.15) : null;
  for (const word of state.words) word.button.classList.toggle("now", word === now);
  if (!live && !state.abort && again.paused) $("stop").disabled = true;
  requestAnimationFrame(follow);
}

// ---------------------------------------------------------------------------------------------- voices

async function refresh(selected) {
  const {data} = await (await ask("/v1/audio/voices")).json();
  const wanted = selected ?? ($("voice").value || localStorage.getItem("voice"));
  $("voice").replaceChildren(...data.map((one) => new Option(one.name, one.id)));
  if (data.some((one) => one.id === wanted)) $("voice").value = wanted;
  $("kept").replaceChildren(...data.filter((one) => one.kind === "uploaded").map(keptVoice));
}

function keptVoice(one) {
  const item = document.createElement("li"), name = document.createElement("span");
  name.textContent = `${one.name}, ${one.seconds.toFixed(1)} s`;
  const keep = document.createElement("button"), drop = document.createElement("button");
  keep.type = drop.type = "button";
  keep.textContent = "Keep as file";
  keep.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await (await ask(`/v1/audio/voices/${one.id}`)).blob());
    link.download = `${one.name.replace(/[^\p{L}\p{N} _-]/gu, "") || "voice"}.safetensors`;
    link.click();
  });
  drop.textContent = "Delete";
  drop.addEventListener("click", async () => {
    await ask(`/v1/audio/voices/${one.id}`, {method: "DELETE"});
    await refresh();
  });
  item.append(name, keep, drop);
  return item;
}

async function upload(file) {
  if (!$("consent").checked) {
    say("voice-status", "first say that its owner agreed", true);
    $("consent").focus();
    return;
  }
  say("voice-status", "listening to it …");
  try {
    const direct = /\.(wav|flac|ogg|mp3|aiff?|safetensors)$/i.test(file.name ?? "");
    const form = new FormData();
    form.append("audio_sample", direct ? file : await asWav(file), "upload");
    form.append("consent", "confirmed on the page");
    form.append("name", $("name").value.trim() || "my voice");
    const voice = await (await ask("/v1/audio/voices", {method: "POST", body: form})).json();
    await refresh(voice.id);
    localStorage.setItem("voice", voice.id);
    say("voice-status", `${voice.name}: ${voice.seconds.toFixed(1)} s kept, and chosen`);
  } catch (error) {
    say("voice-status", error.message, true);
  }
}

let recorder = null;
async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({audio: true});
    const parts = [];
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    recorder.addEventListener("stop", () => {
      for (const track of stream.getTracks()) track.stop();
      recorder = null;
      $("record").textContent = "Record";
      upload(new Blob(parts));
    });
    recorder.start();
    $("record").textContent = "Done";
    say("voice-status", "recording: read something aloud for five seconds or more");
  } catch (error) {
    say("voice-status", `no microphone: ${error.message}`, true);
  }
}

// ---------------------------------------------------------------------------------------------- the controls

$("speak").addEventListener("submit", (event) => { event.preventDefault(); speak(); });
$("stop").addEventListener("click", stop);
$("again").addEventListener("play", () => { state.player?.stop(); $("stop").disabled = false; });
$("speed").addEventListener("input", () => { $("speed-shown").textContent = $("speed").value; });
$("voice").addEventListener("change", () => localStorage.setItem("voice", $("voice").value));
$("key").addEventListener("change", () => { localStorage.setItem("key", $("key").value); start(); });
$("consent").addEventListener("change", () => {
  $("record").disabled = $("choose").disabled = !$("consent").checked;
});
$("record").addEventListener("click", record);
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { if ($("file").files[0]) upload($("file").files[0]); $("file").value = ""; });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("speak").requestSubmit();
  if (event.key === "Escape") stop();
});
document.addEventListener("dragover", (event) => { event.preventDefault(); $("voices").classList.add("over"); });
document.addEventListener("dragleave", () => $("voices").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("voices").classList.remove("over");
  if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
});

async function start() {
  try {
    state.model = (await (await ask("/v1/models")).json()).data[0].id;
    await refresh();
    say("status", "Ctrl+Enter speaks, Esc stops");
  } catch (error) {
    say("status", error.message, true);
  }
}

$("key").value = localStorage.getItem("key") ?? "";
start();
follow();
