// Owns talking to the server: addresses, and errors as sentences.

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The server does not answer; is the command still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || `The server answered ${response.status}.`);
  return body;
}

const at = (slide, what) => `/slides/${encodeURIComponent(slide)}${what}`;

export const listSlides = () => answer(fetch("/slides"));
export const openSlide = (slide) => answer(fetch(at(slide, "")));
export const thumbnail = (slide) => at(slide, "/thumbnail");
export const listObjects = (slide) => answer(fetch(at(slide, "/objects")));
export const readReview = (slide) => answer(fetch(at(slide, "/review")));
export const outlines = (slide, region) =>
  answer(fetch(at(slide, `/outlines?${new URLSearchParams(region)}`)));
export const valuesAt = (slide, x, y, signal) =>
  answer(fetch(at(slide, `/values?x=${x}&y=${y}`), { signal }));
export function writeReview(slide, review) {
  const body = JSON.stringify(review);
  // A small request outlives the page that sends it (browsers allow 64 KiB).
  const keepalive = body.length < 60_000;
  const headers = { "Content-Type": "application/json" };
  return answer(fetch(at(slide, "/review"), { method: "PUT", headers, body, keepalive }));
}
