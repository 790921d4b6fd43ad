// Owns requests to the server: URLs, and error messages.

async function answer(request, read = (body) => body) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The server does not respond; is the command still running?");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error || `The server responded with ${response.status}.`);
  return read(body, response);
}

const at = (slide, what) => `slides/${encodeURIComponent(slide)}${what}`;

export const listSlides = () => answer(fetch("slides"));
export const openSlide = (slide) => answer(fetch(at(slide, "")));
export const thumbnail = (slide) => at(slide, "/thumbnail");
export const listObjects = (slide) => answer(fetch(at(slide, "/objects")));
export const listNext = (slide) => answer(fetch(at(slide, "/next")));
const versionOf = (response) => response.headers.get("ETag");
export const readReview = (slide) =>
  answer(fetch(at(slide, "/review")), (review, response) => ({ ...review, version: versionOf(response) }));
export const outlines = (slide, region) =>
  answer(fetch(at(slide, `/outlines?${new URLSearchParams(region)}`)));
export const valuesAt = (slide, x, y, signal) =>
  answer(fetch(at(slide, `/values?x=${x}&y=${y}`), { signal }));
const JSON_TYPE = { "Content-Type": "application/json" };
export const outlineAt = (slide, click) =>
  answer(fetch(at(slide, "/click"), { method: "POST", headers: JSON_TYPE, body: JSON.stringify(click) }));
export const editShapes = (edit) =>
  answer(fetch("shapes", { method: "POST", headers: JSON_TYPE, body: JSON.stringify(edit) }));

/** Save a review if `version` is still current; returns the new version. */
export function writeReview(slide, review, version) {
  const body = JSON.stringify(review);
  // Lets a small request finish after the page is closed (browsers allow 64 KiB).
  const keepalive = body.length < 60_000;
  const headers = { ...JSON_TYPE, "If-Match": version };
  return answer(fetch(at(slide, "/review"), { method: "PUT", headers, body, keepalive }), (_, response) => versionOf(response));
}
