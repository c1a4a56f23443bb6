"""Opens a study's report.html in headless Chromium and tries it: python bench/page.py STUDY/report.html [SCREENSHOT.png]

Needs playwright from PyPI and a Chromium (CHROMIUM names it; /usr/bin/chromium if unset). Fails with the first thing
that is not as it should be.
"""

import os
import pathlib
import sys

from playwright.sync_api import sync_playwright

page_file = pathlib.Path(sys.argv[1]).resolve()
errors = []


def check(what, condition):
    assert condition, what
    print(f"ok: {what}")


with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
    for scheme in ["light", "dark"]:
        page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 1000})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
        page.goto(page_file.as_uri())
        figures = page.locator("figure")
        sizes = page.eval_on_selector_all("figure svg", "all => all.map(svg => svg.getBoundingClientRect().height)")
        check(f"{scheme}: {figures.count()} figures, all drawn", len(sizes) == figures.count() > 0 and min(sizes) > 30)
        marks = page.eval_on_selector_all("figure", "all => all.map(f => f.querySelectorAll('polyline[points*=\",\"], rect').length)")
        check(f"{scheme}: every figure has marks", min(marks) > 0)
        names = page.eval_on_selector_all("#points thead th", "all => all.map(th => th.textContent)")
        metric = names.index("metric %")

        def column(at):
            return page.eval_on_selector_all("#points tbody tr", f"rows => rows.map(row => row.cells[{at}].textContent)")

        header = page.locator("#points thead button").nth(metric)
        header.focus()
        page.keyboard.press("Enter")
        values = [float(text) for text in column(metric)]
        check(f"{scheme}: {len(values)} rows sorted upwards from the keyboard", values == sorted(values))
        header.click()
        check(f"{scheme}: and downwards", [float(text) for text in column(metric)] == sorted(values, reverse=True))
        page.fill("#words", "least-squares")
        shown = page.eval_on_selector_all("#points tbody tr", "rows => rows.filter(row => !row.hidden).length")
        check(f"{scheme}: the search shows {shown} of {len(values)} rows", shown < len(values))
        page.fill("#words", "")
        sizes = page.evaluate(
            "() => Promise.all(study.figures().flatMap(f => ['svg', 'csv', 'json', 'png'].map(k => study.kinds[k](f).then(b => b.size))))"
        )
        check(f"{scheme}: {len(sizes)} pictures and tables can be saved, the smallest of {min(sizes)} bytes", min(sizes) > 20)
        if len(sys.argv) > 2 and scheme == "light":
            page.screenshot(path=sys.argv[2], full_page=True)
        if len(sys.argv) > 3 and scheme == "dark":
            page.screenshot(path=sys.argv[3])
        page.close()
    browser.close()
check("no console error and no request to a network", not errors or sys.exit("\n".join(errors)))
