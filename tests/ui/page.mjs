// Clicks through the status page in headless Chromium. In: PAGE, CHROMIUM, PROFILE; SCREENSHOTS is a directory to put pictures
// into. Out: a line for each thing that was found, and an exit code. No console error and no violation of the page's own
// security policy is let through.
import { createRequire } from "node:module";
import { mkdirSync, statSync } from "node:fs";
import assert from "node:assert/strict";

const require = createRequire(new URL("../real/package.json", import.meta.url));
const puppeteer = require("puppeteer-core");
const { PAGE, CHROMIUM, PROFILE, SCREENSHOTS } = process.env;

const browser = await puppeteer.launch({
  executablePath: CHROMIUM,
  userDataDir: PROFILE,
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
});
const complaints = [];

async function open(width, height, options = {}) {
  const page = await browser.newPage();
  await page.setViewport({ width, height, deviceScaleFactor: 1 });
  page.on("console", (message) => { if (["error", "warn"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => { if (!request.url().startsWith(PAGE) && !request.url().startsWith("data:")) complaints.push(`asks ${request.url()}`); });
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  if (options.script === false) await page.setJavaScriptEnabled(false);
  await page.goto(PAGE, { waitUntil: "domcontentloaded" });
  return page;
}

const well = (what) => console.log(`ok ${what}`);
const until = (page, fn, ...args) => page.waitForFunction(fn, { timeout: 20_000, polling: 100 }, ...args);
const count = (page, selector) => page.$$eval(selector, (all) => all.length);
const textOf = (page, selector) => page.$eval(selector, (one) => one.textContent.trim());
const fill = (page, selector, value) => page.$eval(selector, (field, text) => { field.value = text; field.dispatchEvent(new Event("change", { bubbles: true })); }, value);

try {
  // Without script the state is there all the same.
  const plain = await open(1200, 900, { script: false });
  assert.match(await textOf(plain, "#pipeline .flow"), /Log files/);
  assert.ok((await plain.$$("#streams tbody tr")).length >= 0);
  assert.match(await textOf(plain, "main noscript"), /need script/);
  await plain.close();
  well("the page stands without script");

  const page = await open(1440, 1000);
  await until(page, () => document.body.dataset.live === "yes");
  await until(page, () => /\d/.test(document.querySelector("#pipeline .edge.flowing .over")?.textContent ?? ""));
  await until(page, () => document.querySelectorAll("#streams tbody tr").length >= 5);
  well("figures flow");

  await until(page, () => document.querySelectorAll("#services tbody tr").length >= 3);
  assert.match(await textOf(page, "#services tbody"), /checkout/);
  await until(page, () => document.querySelectorAll("#objectives article").length === 3);
  assert.match(await textOf(page, "#objectives"), /N\/A: no traffic/);
  await until(page, () => /127\.0\.0\.1:1\/metrics/.test(document.querySelector("#targets tbody")?.textContent ?? "") && /down/.test(document.querySelector("#targets tbody").textContent));
  assert.match(await textOf(page, "#sinks tbody"), /local\.main/);
  well("services, objectives, targets and sinks are there");

  // Live lines, and filters.
  await until(page, () => document.querySelectorAll("#log li .time").length > 20);
  await page.select("#f-level", "error");
  await until(page, () => {
    const levels = [...document.querySelectorAll("#log .level")].map((one) => one.textContent);
    return levels.length > 2 && levels.every((level) => level === "error" || level === "fatal");
  });
  await page.select("#f-level", "");
  await fill(page, "#f-service", "cart");
  await until(page, () => {
    const who = [...document.querySelectorAll("#log .who")].map((one) => one.textContent);
    return who.length > 5 && who.every((name) => name.endsWith("/cart"));
  });
  well("filters narrow the live lines");

  await page.click("#pause");
  const before = await count(page, "#log li");
  await until(page, () => /\(\d+\)/.test(document.querySelector("#pause").textContent));
  assert.equal(await count(page, "#log li"), before);
  await page.click("#pause");
  await until(page, (was) => document.querySelectorAll("#log li").length > was, before);
  well("a pause holds and lets go");

  // A trace leads to all of its lines, of several services.
  await page.click("#clear");
  await until(page, () => document.querySelectorAll("#log .trace").length > 30);
  await page.$$eval("#log .trace", (all) => all[4].click());
  await until(page, () => document.body.dataset.lines === "searched" && document.querySelectorAll("#log li").length >= 3);
  const trace = await page.$eval("#f-trace", (field) => field.value);
  assert.match(trace, /^[0-9a-f]{32}$/);
  const services = new Set(await page.$$eval("#log .who", (all) => all.map((one) => one.textContent)));
  assert.ok(services.size >= 3, `a trace of ${[...services]}`);
  assert.match(await textOf(page, "#lines-note"), /^\d+ lines/);
  well("a click on a trace finds all its lines");

  // Search, by keyboard.
  await page.keyboard.press("Escape");
  await until(page, () => document.body.dataset.lines === "live");
  await page.click("#clear");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "f-grep");
  await page.keyboard.type("hostile");
  await page.keyboard.press("Enter");
  await until(page, () => document.body.dataset.lines === "searched" && document.querySelectorAll("#log li .text").length > 0);
  const found = await textOf(page, "#log li .text");
  assert.ok(found.includes("<img src=x onerror="), found);
  assert.equal(await count(page, "#log img, #log script, #streams img, #services img, datalist img"), 0);
  well("search finds lines, and a hostile one stays text");

  // Explain.
  await page.$eval("#explain-line", (field) => { field.value = '{"level":50,"msg":"boom <b>","traceId":"4bf92f3577b34da6a3ce929d0e0e4736","password":"x"}'; });
  await page.type("#explain-ns", "shop");
  await page.type("#explain-pod", "checkout-7d9f6c5b4-x2k8p");
  await page.click("#explain-form button");
  await until(page, () => /4bf92f3577b34da6a3ce929d0e0e4736/.test(document.querySelector("#explained .fields")?.textContent ?? ""));
  assert.equal(await count(page, "#explained b"), 0);
  well("explain shows what is recognised");

  // A button of the owner.
  assert.equal(await textOf(page, "[data-action]"), "Break checkout");
  await page.click("[data-action]");
  await until(page, () => document.querySelector("[data-action]").textContent === "Mend checkout");
  assert.equal(await page.$eval("[data-action]", (one) => one.getAttribute("aria-pressed")), "true");
  await page.click("[data-action]");
  await until(page, () => document.querySelector("[data-action]").textContent === "Break checkout");
  well("a button acts");

  // Keyboard.
  await page.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
  await page.keyboard.press("j");
  const first = await page.evaluate(() => document.activeElement.closest("[data-row]")?.textContent);
  await page.keyboard.press("j");
  const second = await page.evaluate(() => document.activeElement.closest("[data-row]")?.textContent);
  assert.ok(first && second && first !== second);
  await page.keyboard.press("?");
  assert.equal(await page.$eval("#keys", (dialog) => dialog.open), true);
  await page.keyboard.press("Escape");
  assert.equal(await page.$eval("#keys", (dialog) => dialog.open), false);
  well("the keyboard leads through the page");

  // Theme: light, then dark, kept over a reload.
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("t");
  const light = await ground();
  await page.keyboard.press("t");
  const dark = await ground();
  assert.notEqual(light, dark);
  await page.reload({ waitUntil: "domcontentloaded" });
  assert.equal(await ground(), dark);
  await until(page, () => document.body.dataset.live === "yes");
  well("the theme is kept");

  // Contrast of text on its ground, in both themes: 4.5 and more.
  for (const theme of ["dark", "light"]) {
    await page.evaluate((name) => { document.documentElement.dataset.theme = name; }, theme);
    const poor = await page.evaluate(() => {
      const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
      const lum = ([r, g, b]) => { const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
      const found = new Set();
      for (const one of document.querySelectorAll("main *, header *, nav *, footer *")) {
        if (!one.offsetParent || ![...one.childNodes].some((node) => node.nodeType === 3 && node.nodeValue.trim())) continue;
        const own = rgb(getComputedStyle(one).color);
        let at = one;
        let ground = [0, 0, 0, 0];
        while (at && ground[3] < 255) { ground = rgb(getComputedStyle(at).backgroundColor); at = at.parentElement; }
        const [a, b] = [lum(own), lum(ground)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) found.add(`${one.tagName}.${one.className} ${ratio.toFixed(2)} ${one.textContent.trim().slice(0, 20)}`);
      }
      return [...found];
    });
    assert.deepEqual(poor, [], theme);
  }
  well("text stands out from its ground");

  // Labels and landmarks.
  const bare = await page.evaluate(() => [...document.querySelectorAll("input, select, textarea, button, section")]
    .filter((one) => !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label") || one.getAttribute("aria-labelledby")))
    .map((one) => one.outerHTML));
  assert.deepEqual(bare, []);
  for (const landmark of ["header", "nav", "main", "footer"]) assert.equal(await count(page, `body > ${landmark}`), 1, landmark);
  well("fields have labels and the page landmarks");

  // A phone.
  const phone = await open(375, 740);
  await until(phone, () => document.body.dataset.live === "yes");
  await until(phone, () => document.querySelectorAll("#log li").length > 3);
  const wide = await phone.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 375, `the page is ${wide} wide on a phone`);
  well("it fits a phone");

  if (SCREENSHOTS) {
    mkdirSync(SCREENSHOTS, { recursive: true });
    const shoot = async (of, name, clip) => {
      const path = `${SCREENSHOTS}/${name}.png`;
      await of.screenshot({ path, clip });
      const size = statSync(path).size;
      assert.ok(size <= 200 * 1024, `${name} has ${size} bytes`);
      console.log(`picture ${name} ${size}`);
    };
    await shoot(phone, "status-page-phone");
    await page.bringToFront();
    await page.setViewport({ width: 1440, height: 1000, deviceScaleFactor: 1 });
    await page.waitForFunction(() => document.querySelector("#objectives article.firing, #objectives article.burning"), { timeout: 150_000 });
    await new Promise((done) => setTimeout(done, Number(process.env.SETTLE ?? 60) * 1000));
    for (const theme of ["light", "dark"]) {
      await page.evaluate((name) => { document.documentElement.dataset.theme = name; document.activeElement.blur(); scrollTo({ top: 0, behavior: "instant" }); }, theme);
      await new Promise((done) => setTimeout(done, 1200));
      await shoot(page, `status-page-${theme}`);
      if (process.env.ALL) {
        const height = await page.evaluate(() => document.documentElement.scrollHeight);
        await page.screenshot({ path: `${process.env.ALL}/all-${theme}.png`, fullPage: true });
        console.log(`whole page ${height}`);
      }
    }
    await page.evaluate(() => { document.documentElement.dataset.theme = "light"; document.getElementById("lines").scrollIntoView({ behavior: "instant" }); });
    await new Promise((done) => setTimeout(done, 1200));
    await page.setViewport({ width: 1240, height: 640, deviceScaleFactor: 1 });
    await page.evaluate(() => { document.getElementById("lines").scrollIntoView({ behavior: "instant" }); });
    await new Promise((done) => setTimeout(done, 800));
    await shoot(page, "status-page-lines");
  }

  for (const of of [page, phone]) assert.deepEqual(await of.evaluate(() => window.violations), []);
  assert.notEqual(await page.title(), "owned");
  assert.deepEqual(complaints, []);
  console.log("\nall is well");
} catch (error) {
  console.error(error);
  const [, page] = await browser.pages().catch(() => []);
  if (page) console.error((await page.evaluate(() => `${document.body.dataset.lines} | ${document.getElementById("lines-note")?.textContent} | ${document.getElementById("log")?.textContent.slice(0, 600)}`).catch(String)));
  console.error("complaints:", complaints);
  process.exitCode = 1;
} finally {
  await browser.close();
}
