// Making and writing elements. Styles are set through the CSSOM only: the policy of the page forbids them in markup.

const SVG = "http://www.w3.org/2000/svg";

// h("p", {class: "quiet", onclick: f}, "text", element): attributes that are null or false are left out.
export function h(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

export function s(tag, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export const byId = (id) => document.getElementById(id);

// Only what is new: a screen reader reads a live region again each time it is written, and a selection would be lost.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

export function style(element, name, value) {
  if (element.style.getPropertyValue(name) !== String(value)) element.style.setProperty(name, value);
}

// Makes `parent` hold exactly `wanted`, in this order; what stays is not moved, so that it keeps its focus.
export function arrange(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  wanted.forEach((element, index) => {
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}

// Badges as the admin has them. Written anew only when their words change.
export function badges(parent, marks) {
  const said = marks.map(([word, kind]) => `${kind} ${word}`).join("\n");
  if (parent.dataset.said === said) return;
  parent.dataset.said = said;
  parent.replaceChildren(...marks.flatMap(([word, kind]) => [h("span", { class: `badge ${kind}` }, word), " "]));
}

export function later(work, ms) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), ms);
  };
}
