// Requests to the server; a mistake comes back as an exception that holds its sentences.

export class Mistake extends Error {
  constructor(fault) {
    super(fault.what);
    this.fault = fault;
  }
}

async function answered(response) {
  if (response.ok) return response;
  let found = null;
  try {
    found = (await response.json()).error;
  } catch {
    // no JSON: the guard or the server itself
  }
  throw new Mistake(found ?? { what: `the server answered ${response.status}`, where: "", why: "", fix: "Reload the page, or start `make ui` again" });
}

async function request(path, given) {
  try {
    return await answered(await fetch(path, given));
  } catch (error) {
    if (error instanceof Mistake) throw error;
    throw new Mistake({ what: "the server does not answer", where: "", why: "", fix: "Start `make ui` again, and open the address that it prints" });
  }
}

export const get = async (path) => (await request(path)).json();
export const text = async (path) => (await request(path)).text();
export const post = async (path, value) => (await request(path, { method: "POST", body: JSON.stringify(value) })).json();
export const upload = async (path, file) => (await request(path, { method: "POST", body: file })).json();

// Follows a stream of states until the page of a view is left; `onstate` gets each, `online` whether it is connected.
export function follow(path, onstate, online = () => {}) {
  const source = new EventSource(path);
  source.onmessage = (event) => onstate(JSON.parse(event.data));
  source.onopen = () => online(true);
  source.onerror = () => online(false);
  return () => source.close();
}
