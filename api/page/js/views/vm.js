// One VM: filled in next.
export const views = [];
