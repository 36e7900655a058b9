// Pack `{{name}}`. What its commands take and give is written in wit/pack.wit; this is what they do.
import { read } from "outhaul:host/system@0.1.0";

// One object for each interface that the world exports; `-` in names is camelCase here.
export const {{camel}} = {
  greet(person) {
    if (person.name === "") {
      throw { tag: "no-name" };
    }
    const title = person.title === undefined ? "" : `${person.title} `;
    return { text: `Hello, ${title}${person.name}!`, uptime: uptime() };
  },
};

function uptime() {
  try {
    return read().uptime;
  } catch (error) {
    // A host's error has the same cases as ours, by the same names: `denied` and `failed`.
    throw error.payload;
  }
}
