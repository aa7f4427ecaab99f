"use strict";
(() => {
  const layout = document.querySelector(".layout");
  const player = layout.querySelector("video, audio");
  if (!player) return;
  const buttons = document.querySelectorAll("button[data-start]");
  let end = Infinity;
  const ready = () => buttons.forEach((button) => { button.hidden = false; });
  const gone = () => {
    player.hidden = true;
    layout.classList.remove("playing");
    document.getElementById("unplayable").hidden = false;
    buttons.forEach((button) => { button.hidden = true; });
  };
  player.addEventListener("loadedmetadata", ready);
  player.addEventListener("error", gone);
  player.addEventListener("timeupdate", () => {
    if (player.currentTime >= end) {
      end = Infinity;
      player.pause();
    }
  });
  player.addEventListener("seeking", () => { if (player.currentTime > end) end = Infinity; });
  buttons.forEach((button) => button.addEventListener("click", () => {
    end = Number(button.dataset.end);
    player.currentTime = Number(button.dataset.start);
    player.play().catch(() => {});
  }));
  if (player.error) gone();
  else if (player.readyState > 0) ready();
})();
