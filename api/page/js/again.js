// A fetch of what only looks, that is asked again. A laptop that comes to another network, or a
// service that was just started anew, is there again at once.
const AFTER_MS = [300, 1000, 2500];

export async function look(where, wanted) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await fetch(where, wanted);
    } catch (error) {
      if (error.name === "AbortError" || tries >= AFTER_MS.length) throw error;
      await new Promise((go) => setTimeout(go, AFTER_MS[tries]));
    }
  }
}
