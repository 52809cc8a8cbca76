// Requests as JSON text.

/** JSON text of a request: typed arrays become lists, and what JSON has no form for is refused. */
export function toJson(value, path) {
  try {
    return JSON.stringify(value, (_, item) => {
      if (typeof item === "number" && !Number.isFinite(item)) throw new Refused();
      return ArrayBuffer.isView(item) ? Array.from(item) : item;
    });
  } catch (error) {
    const [field, message] = culprit(value, path) ?? [path, error.message];
    throw { input: { tag: "invalid-input", val: { field, message } } };
  }
}

class Refused extends Error {}

function culprit(value, path) {
  if (typeof value === "number") {
    return Number.isFinite(value) ? undefined : [path, `${value} is not finite`];
  }
  if (typeof value === "bigint") return [path, "a BigInt has no form in JSON"];
  if (!value || typeof value !== "object") return undefined;
  const isList = Array.isArray(value) || ArrayBuffer.isView(value);
  for (const [name, item] of isList ? value.entries() : Object.entries(value)) {
    const found = culprit(item, isList ? `${path}[${name}]` : path ? `${path}.${name}` : name);
    if (found) return found;
  }
  return undefined;
}
