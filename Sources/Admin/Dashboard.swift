// The dashboard: one page with its own style and script, compiled in, and nothing from anywhere else. It only reads:
// `/api/overview` every two seconds, and `/api/events`. The script writes text as text, never as markup, and the policy
// below makes the browser hold it to that: no inline script or style, no other origin, no form, no frame.

import Primitives

enum Dashboard {
    private static let policy =
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

    static func answer(_ path: String) -> SmallAnswer {
        let (type, text) =
            switch path {
            case "/dashboard.css": ("text/css; charset=utf-8", style)
            case "/dashboard.js": ("text/javascript; charset=utf-8", script)
            default: ("text/html; charset=utf-8", page)
            }
        var answer = SmallAnswer(contentType: type, body: Array(text.utf8))
        answer.fields = "Content-Security-Policy: \(policy)\r\nReferrer-Policy: no-referrer\r\n"
        return answer
    }

    private static let page = #"""
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="dark light">
        <title>Sluice</title>
        <link rel="icon" href="data:,">
        <link rel="stylesheet" href="/dashboard.css">
        <script src="/dashboard.js" defer></script>
        </head>
        <body>
        <header>
          <div class="brand">
            <svg viewBox="0 0 32 32" aria-hidden="true">
              <path d="M5 4v24M27 4v24" class="gate"/>
              <path d="M9 11c3.5-3 7 3 14 0M9 17c3.5-3 7 3 14 0M9 23c3.5-3 7 3 14 0" class="water"/>
            </svg>
            <h1>Sluice</h1>
            <span id="self" class="muted"></span>
          </div>
          <div class="status">
            <span id="ready" class="pill">connecting</span>
            <span id="cluster" class="pill"></span>
            <button id="theme" type="button" title="Light or dark" aria-label="Light or dark">◐</button>
          </div>
        </header>
        <div id="stale" role="alert" hidden></div>
        <ul id="warnings" hidden></ul>
        <main>
          <section id="tiles" aria-label="Now"></section>
          <section class="card third"><h2>Requests <small>a second, this node</small></h2>
            <div class="legend" id="traffic-legend"></div><div class="chart" id="traffic-chart"></div></section>
          <section class="card third"><h2>Errors and refusals <small>a second, this node</small></h2>
            <div class="legend" id="trouble-legend"></div><div class="chart" id="trouble-chart"></div></section>
          <section class="card third"><h2>Latency <small>milliseconds, this node</small></h2>
            <div class="legend" id="latency-legend"></div><div class="chart" id="latency-chart"></div></section>
          <section class="card full"><h2>Services <small id="service-count"></small></h2>
            <div id="services"></div></section>
          <section class="card wide"><h2>Nodes <small id="node-count"></small></h2><div id="nodes"></div></section>
          <section class="card wide"><h2>Limits <small>this node</small></h2><div id="limits"></div></section>
          <section class="card wide"><h2>Near their limit <small>all nodes</small></h2><div id="subjects"></div></section>
          <section class="card wide"><h2>Refused most <small>lately, all nodes</small></h2><div id="refused"></div></section>
          <section class="card full"><h2>Events <small id="live">live</small></h2>
            <ol id="events" aria-live="polite"></ol>
            <div class="empty" id="no-events">Nothing to tell yet.</div></section>
        </main>
        <footer id="footer" class="muted"></footer>
        </body>
        </html>

        """#
}
