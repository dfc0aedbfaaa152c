// fMP4 chunks into a <video>, by Media Source Extensions: one MediaSource a session, one timeline for all segments.

const KEEP_BEHIND_SECONDS = 10; // what is older than this behind the playhead is removed: memory stays bounded
const MAX_BEHIND_LIVE_SECONDS = 6; // further behind the newest picture, playback jumps forward
export const MAX_WAITING_BYTES = 32 * 1024 * 1024; // not taken by the browser yet; past it, segments are dropped

const Source = window.ManagedMediaSource ?? window.MediaSource; // Safari on a phone has only the managed one

export const canPlay = Source !== undefined;

export class MediaFeed {
  constructor(video, onFault) {
    this.video = video;
    this.onFault = onFault;
    this.waiting = []; // chunks, and functions of the buffer to call between them
    this.waitingBytes = 0;
    this.dropping = false; // until the next segment begins
    this.buffer = null;
    this.mime = "";
    this.source = new Source();
    this.url = URL.createObjectURL(this.source);
    video.disableRemotePlayback = true; // or a managed source never opens
    video.src = this.url;
    this.source.addEventListener("sourceopen", () => this.#open(), { once: true });
  }

  // A new segment: the type must be playable here. A change of codec re-configures the buffer.
  segment(mime) {
    const playable = Source.isTypeSupported(mime);
    if (!playable) this.onFault(`This browser cannot play ${mime}.`);
    if (this.dropping) this.waiting.push((buffer) => buffer.abort()); // what was appended may end within a box
    this.dropping = !playable;
    if (!playable) return;
    if (this.mime && mime !== this.mime) this.waiting.push((buffer) => buffer.changeType(mime));
    this.mime = mime;
    this.#open();
  }

  chunk(data) {
    if (this.dropping) return;
    if (this.waitingBytes + data.byteLength > MAX_WAITING_BYTES) {
      this.waiting = [];
      this.waitingBytes = 0;
      this.dropping = true;
      this.onFault("The browser does not keep up with the video: a part of it is left out.");
      return;
    }
    this.waiting.push(data);
    this.waitingBytes += data.byteLength;
    this.#next();
  }

  end() {
    if (this.source.readyState === "open" && this.buffer && !this.buffer.updating) this.source.endOfStream();
  }

  close() {
    this.waiting = [];
    this.dropping = true;
    this.buffer = null;
    URL.revokeObjectURL(this.url);
  }

  #open() {
    if (this.buffer || !this.mime || this.source.readyState !== "open") return;
    this.buffer = this.source.addSourceBuffer(this.mime);
    this.buffer.addEventListener("updateend", () => this.#next());
    this.buffer.addEventListener("error", () => this.onFault("The browser could not read the video."));
    this.#next();
  }

  #next() {
    const buffer = this.buffer;
    if (!buffer || buffer.updating || this.source.readyState !== "open") return;
    this.#stayLive();
    const { currentTime } = this.video;
    if (buffer.buffered.length && currentTime - buffer.buffered.start(0) > 2 * KEEP_BEHIND_SECONDS) {
      buffer.remove(0, currentTime - KEEP_BEHIND_SECONDS);
      return;
    }
    while (typeof this.waiting[0] === "function") this.waiting.shift()(buffer);
    const first = this.waiting[0];
    if (first === undefined) return;
    try {
      buffer.appendBuffer(first);
    } catch (fault) {
      if (fault.name !== "QuotaExceededError") throw fault;
      buffer.remove(0, Math.max(0.1, currentTime - 1));
      return;
    }
    this.waiting.shift();
    this.waitingBytes -= first.byteLength;
  }

  #stayLive() {
    const { buffered, currentTime, paused } = this.video;
    if (!buffered.length) return;
    const start = buffered.start(0);
    const newest = buffered.end(buffered.length - 1);
    if (currentTime < start || newest - currentTime > MAX_BEHIND_LIVE_SECONDS) {
      this.video.currentTime = Math.max(start, newest - 1);
    }
    if (paused) this.video.play().catch(() => {}); // muted video may start by itself; if not, its picture still shows
  }
}
