// fMP4 chunks into a <video>, by Media Source Extensions: one MediaSource a session, one timeline for all segments.

const KEEP_BEHIND_SECONDS = 10; // what is older than this behind the playhead is removed: memory stays bounded
const MAX_BEHIND_LIVE_SECONDS = 6; // further behind the newest picture, playback jumps forward

export class MediaFeed {
  constructor(video, onFault) {
    this.video = video;
    this.onFault = onFault;
    this.waiting = []; // chunks not appended yet; the session's pace bounds them
    this.buffer = null;
    this.mime = "";
    this.source = new MediaSource();
    this.url = URL.createObjectURL(this.source);
    video.src = this.url;
    this.source.addEventListener("sourceopen", () => this.#open(), { once: true });
  }

  // A new segment: the type must be playable here. A change of codec re-configures the buffer.
  segment(mime) {
    if (!MediaSource.isTypeSupported(mime)) {
      this.onFault(`This browser cannot play ${mime}.`);
      return;
    }
    if (this.buffer && mime !== this.mime) this.waiting.push({ changeTo: mime });
    this.mime = mime;
    this.#open();
  }

  chunk(data) {
    this.waiting.push(data);
    this.#next();
  }

  end() {
    if (this.source.readyState === "open" && this.buffer && !this.buffer.updating) this.source.endOfStream();
  }

  close() {
    this.waiting = [];
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
    const first = this.waiting.shift();
    if (first === undefined) return;
    try {
      if (first.changeTo) {
        buffer.changeType(first.changeTo);
        this.#next();
      } else {
        buffer.appendBuffer(first);
      }
    } catch (fault) {
      if (fault.name !== "QuotaExceededError") throw fault;
      this.waiting.unshift(first);
      buffer.remove(0, Math.max(0.1, currentTime - 1));
    }
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
