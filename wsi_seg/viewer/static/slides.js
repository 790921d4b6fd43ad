// Owns the slide list: a thumbnail and a link per slide, and a search field if there are many.

import { thumbnail } from "./api.js";
import { element } from "./dom.js";

const MANY_SLIDES = 8;

function listed(name, open) {
  const picture = element("img", { src: thumbnail(name), loading: "lazy", fetchPriority: "low", alt: "" });
  const link = element("a", { href: `#slide=${encodeURIComponent(name)}`, title: name }, picture, element("span", {}, name));
  link.dataset.slide = name;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    open(name);
  });
  return link;
}

/** Fill the slide list; `open` is called with the name of a clicked slide. */
export function listSlideLinks(names, open) {
  const links = names.map((name) => listed(name, open));
  const field = element("input", { type: "search", placeholder: "Find a slide", ariaLabel: "Find a slide" });
  field.hidden = names.length < MANY_SLIDES;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const link of links) link.hidden = !link.dataset.slide.toLowerCase().includes(wanted);
  });
  document.getElementById("slides").replaceChildren(field, ...links);
}
