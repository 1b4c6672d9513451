// One participant's way through a study: consent, trial after trial, thanks. What is right is not known here.
"use strict";

const at = (id) => document.getElementById(id);
const KEYS = { 1: "left", 2: "right", 0: "neither" };
const sound = new Audio();
let study, participant, waiting = [], total = 0, trial = null;
let heardAt = null;  // when the sound had ended for the first time
let sending = false;

async function ask(address, options) {
  const reply = await fetch(address, options);
  if (!reply.ok) {
    const error = new Error(`${address}: ${reply.status}`);
    error.status = reply.status;
    throw error;
  }
  return reply.json();
}

const memory = {
  name: () => `unibrivl-study-${study.study_id}`,
  get() { try { return localStorage.getItem(this.name()); } catch { return null; } },
  set(value) { try { localStorage.setItem(this.name(), value); } catch { /* a browser that keeps nothing: no resuming */ } },
};

// crypto.randomUUID is missing where a study is opened over plain http from another machine
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

function show(name) {
  for (const section of ["consent", "trial", "thanks"]) at(section).hidden = section !== name;
}

function tell(words) { at("status").textContent = words; }
function complain(words) { at("problem").textContent = words; }

async function begin() {
  study = await ask("trials.json");
  document.title = study.title;
  at("title").textContent = study.title;
  at("question").textContent = study.question;
  at("count").textContent = study.num_trials === 1 ? "1 sound" : `${study.num_trials} sounds`;
  for (const words of study.consent) {
    const paragraph = document.createElement("p");
    paragraph.textContent = words;
    at("terms").append(paragraph);
  }
  participant = memory.get();
  if (participant === null) show("consent");
  else await resume();
}

async function resume() {
  const session = await ask(`session?participant=${encodeURIComponent(participant)}`);
  const answered = new Set(session.answered);
  total = session.trials.length;
  waiting = session.trials.filter((one) => !answered.has(one.trial));
  await next();
}

async function next() {
  trial = null;
  heardAt = null;
  sound.pause();
  unlock(false);
  if (waiting.length === 0) {
    at("number").textContent = participant;
    show("thanks");
    at("thanks-title").focus();
    tell("Thank you. All your answers are saved.");
    return;
  }
  const one = waiting[0];
  const done = total - waiting.length;
  at("place").textContent = `${done + 1} of ${total}`;
  at("progress").max = total;
  at("progress").value = done;
  at("play").disabled = true;
  at("play-words").textContent = "Loading ...";
  at("heard").style.width = "0";
  show("trial");
  await Promise.all([picture("left", one.left), picture("right", one.right), listenTo(one.sound)]);
  trial = one;
  at("play").disabled = false;
  at("play-words").textContent = "Play the sound";
  at("play").focus();
  tell(`Sound ${done + 1} of ${total}. Play it to its end.`);
}

function picture(side, name) {
  const image = at(`${side}-image`);
  image.src = `media/${name}`;
  return image.decode();
}

// Fetched whole: some browsers load no sound by themselves before somebody has pressed a button.
async function listenTo(name) {
  const reply = await fetch(`media/${name}`);
  if (!reply.ok) throw new Error(`${name}: ${reply.status}`);
  const content = await reply.blob();
  if (sound.src) URL.revokeObjectURL(sound.src);
  sound.src = URL.createObjectURL(content);
}

function unlock(open) {
  for (const choice of Object.values(KEYS)) at(choice).disabled = !open;
  at("hint").textContent = open ? "Choose a picture, or neither." : "Hear the sound to its end first.";
}

async function play() {
  if (trial === null || !sound.paused) return;
  sound.currentTime = 0;
  try {
    await sound.play();
    at("play-words").textContent = "Playing ...";
  } catch (error) {
    failed(error);
  }
}

function ended() {
  at("heard").style.width = "100%";
  at("play-words").textContent = "Play it again";
  if (trial === null || heardAt !== null) return;
  heardAt = performance.now();
  unlock(true);
  tell("The sound has ended. Press 1 or 2 for a picture, 0 for neither.");
}

async function choose(choice) {
  if (trial === null || sending) return;
  if (heardAt === null) {
    tell("Hear the sound to its end first.");
    return;
  }
  sending = true;
  const body = JSON.stringify({
    study_id: study.study_id,
    participant,
    trial_id: trial.trial,
    choice,
    rt_ms: Math.round(performance.now() - heardAt),
    audio_played: true,
  });
  try {
    await ask("answer", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    complain("");
    waiting.shift();
    await next();
  } catch (error) {
    if (error.status === 409) await resume().catch(failed);  // answered in another tab
    else if (trial === null || error.status === 410) failed(error);
    else complain("Your answer could not be saved. Please try again in a moment.");
  } finally {
    sending = false;
  }
}

function failed(error) {
  console.error(error);
  complain("Something could not be loaded. Please reload this page: your answers are kept.");
}

sound.addEventListener("ended", ended);
sound.addEventListener("timeupdate", () => {
  if (sound.duration > 0) at("heard").style.width = `${100 * sound.currentTime / sound.duration}%`;
});
at("play").addEventListener("click", play);
for (const choice of Object.values(KEYS)) at(choice).addEventListener("click", () => choose(choice));
at("agree").addEventListener("click", () => {
  participant = uuid();
  memory.set(participant);
  resume().catch(failed);
});
document.addEventListener("keydown", (event) => {
  if (at("trial").hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in KEYS) choose(KEYS[event.key]);
});
begin().catch(failed);
