import { componentize } from "@bytecodealliance/componentize-js";
import { writeFile } from "node:fs/promises";

const [sourcePath, witPath, worldName, output] = process.argv.slice(1);
// No requests: an agent offers no wasi:http that a pack did not ask for by itself.
const { component } = await componentize({ sourcePath, witPath, worldName, disableFeatures: ["http", "fetch-event"] });
await writeFile(output, component);
