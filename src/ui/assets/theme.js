// Before the first paint: the theme that was chosen, so that nothing flashes.
try {
  const chosen = localStorage.getItem("nodewick-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage is switched off: the system's choice holds */ }
