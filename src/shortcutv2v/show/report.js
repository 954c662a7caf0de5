"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const run = data.runs[data.main], frames = run.frames, count = frames.length;
  const $ = (id) => document.getElementById(id);
  const slider = $("frame"), says = $("says"), play = $("play"), overlay = $("overlay");
  const names = ["input", "teacher", "ours", "error"];
  let now = 0, timer = null;

  const value = (score) => (score.values.psnr && "ours" in score.values.psnr ? score.values.psnr.ours : null);
  const words = (n) => {
    const score = frames[n], quality = value(score);
    const kind = score.opening ? "opening" : score.distance ? `shortcut, distance ${score.distance}` : `refresh: ${score.reason}`;
    const time = data.times[n] === undefined ? "" : `, ${data.times[n].toFixed(2)} s`;
    return `frame ${data.start + n}${time}, ${kind}` + (score.distance && quality !== null ? `, ${quality.toFixed(2)} dB` : "");
  };

  const arrows = (n) => {
    overlay.replaceChildren();
    const field = data.arrows[n];
    if (!field || !$("arrows").checked) return;
    const [, , width, height] = overlay.getAttribute("viewBox").split(" ").map(Number);
    for (let i = 0; i < field.length; i += 4) {
      const [x, y, dx, dy] = field.slice(i, i + 4).map((v, k) => (v / 1000) * (k % 2 ? height : width));
      const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      line.setAttribute("d", `M${x - 3} ${y}h6M${x} ${y - 3}v6M${x} ${y}l${dx} ${dy}`);
      overlay.append(line);
    }
  };

  const map = (n) => {
    const chosen = document.querySelector("input[name=map]:checked").value, shown = $("map");
    const uri = chosen === "none" ? null : (data[chosen] || [])[n];
    shown.hidden = !uri;
    if (uri) shown.src = uri;
  };

  const show = (n) => {
    now = Math.max(0, Math.min(count - 1, n));
    for (const name of names) {
      const picture = $(`picture-${name}`);
      picture.src = data.pictures[name][now];
      picture.alt = `${name}, frame ${data.start + now}`;
    }
    slider.value = now;
    slider.setAttribute("aria-valuetext", words(now));
    says.textContent = words(now);
    arrows(now);
    map(now);
    for (const plot of document.querySelectorAll(".plot.click > div")) {
      const [left, right] = plot.dataset.ends.split(" ").map(Number);
      plot.querySelector(".cursor").style.left = `${100 * (left + ((right - left) * now) / Math.max(count - 1, 1))}%`;
    }
  };

  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; says.ariaLive = "polite"; };
  const start = () => {
    play.textContent = "Pause";
    says.ariaLive = "off"; // a screen reader need not follow every frame
    timer = setInterval(() => show(now + 1 < count ? now + 1 : 0), 1000 / data.rate);
  };
  const go = (n) => { stop(); show(n); };

  slider.addEventListener("input", () => go(Number(slider.value)));
  play.addEventListener("click", () => (timer ? stop() : start()));
  $("back").addEventListener("click", () => go(now - 1));
  $("next").addEventListener("click", () => go(now + 1));
  for (const box of document.querySelectorAll("#player fieldset input")) box.addEventListener("change", () => show(now));
  for (const plot of document.querySelectorAll(".plot.click > div")) {
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect(), [left, right] = plot.dataset.ends.split(" ").map(Number);
      go(Math.round((((event.clientX - box.left) / box.width - left) / (right - left)) * (count - 1)));
    });
  }
  for (const button of document.querySelectorAll(".worst button")) {
    const n = Number(button.dataset.frame);
    button.querySelector("img").src = data.pictures.ours[n];
    button.addEventListener("click", () => { go(n); $("player").scrollIntoView(); slider.focus(); });
  }
  const keys = { ArrowLeft: -1, ArrowRight: 1, ",": -1, ".": 1 };
  document.addEventListener("keydown", (event) => {
    const inside = event.target.closest("input, button, .scroll");
    if (event.ctrlKey || event.altKey || event.metaKey || (inside && event.key !== "," && event.key !== ".")) return;
    if (event.key in keys) go(now + keys[event.key]);
    else if (event.key === " ") timer ? stop() : start();
    else return;
    event.preventDefault();
  });
  show(data.first);
})();
