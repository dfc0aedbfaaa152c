// The page's requests: JSON from the server, and acts. A refusal becomes an error whose message is for people.

const TIMEOUT_MS = 10000;

const base = () => new URL(document.body.dataset.base, location.href);

export async function ask(path, { signal } = {}) {
  return answered(fetch(new URL(path, base()), { signal: signal ?? AbortSignal.timeout(TIMEOUT_MS) }));
}

// body: {"what": …}; with "ask": true nothing is done. Gives what the server says.
export async function act(body) {
  const token = document.querySelector("meta[name=csrf-token]").content;
  const request = fetch(new URL("act", base()), {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": token },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  return (await answered(request)).said;
}

async function answered(request) {
  let answer;
  try {
    answer = await request;
  } catch (error) {
    if (error.name === "AbortError") throw error; // the page itself has asked for something newer
    throw new Error(error.name === "TimeoutError" ? "The router does not answer." : "The router cannot be reached.");
  }
  const found = await answer.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    if (answer.ok) throw new Error("The router’s answer was cut off."); // never half an answer for a whole one
    return {};
  });
  if (answer.ok) return found;
  const refusal = answer.status === 403 ? "Refused: sign in again, or ask for the permission." : `The router answered ${answer.status}.`;
  throw Object.assign(new Error(found.error ?? refusal), { status: answer.status });
}
