extension Dashboard {
    /// Everything that is shown goes through `textContent`: what a client or a backend names can be no markup.
    static let script = #"""
        "use strict";
        const $ = (id) => document.getElementById(id);
        const SVG = "http://www.w3.org/2000/svg";

        function make(tag, className, text) {
          const element = document.createElement(tag);
          if (className) element.className = className;
          if (text !== undefined) element.textContent = text;
          return element;
        }
        function shape(tag, attributes, text) {
          const element = document.createElementNS(SVG, tag);
          for (const name in attributes) element.setAttribute(name, attributes[name]);
          if (text !== undefined) element.textContent = text;
          return element;
        }
        function fill(target, ...children) { target.replaceChildren(...children); }

        // Numbers as people read them.
        function short(n) {
          if (n === undefined || n === null) return "–";
          const size = Math.abs(n);
          if (size >= 1e9) return (n / 1e9).toFixed(1) + "G";
          if (size >= 1e6) return (n / 1e6).toFixed(1) + "M";
          if (size >= 1e4) return (n / 1e3).toFixed(size >= 1e5 || n % 1e3 === 0 ? 0 : 1) + "k";
          if (size >= 100 || Number.isInteger(n)) return Math.round(n).toLocaleString("en");
          return n.toFixed(size < 10 ? 1 : 0);
        }
        function millis(n) {
          if (n === undefined || n === null) return "–";
          if (n >= 10000) return (n / 1000).toFixed(0) + " s";
          if (n >= 1000) return (n / 1000).toFixed(1) + " s";
          return (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2)) + " ms";
        }
        function bytes(n) {
          const units = ["B", "KiB", "MiB", "GiB", "TiB"];
          let unit = 0;
          while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit++; }
          return n.toFixed(n < 10 && unit ? 1 : 0) + " " + units[unit];
        }
        function duration(seconds) {
          if (seconds >= 172800) return Math.floor(seconds / 86400) + " days";
          if (seconds >= 7200) return Math.floor(seconds / 3600) + " h";
          if (seconds >= 120) return Math.floor(seconds / 60) + " min";
          return Math.floor(seconds) + " s";
        }
        const share = (part, whole) => whole > 0 ? (100 * part / whole).toFixed(part / whole < .1 ? 1 : 0) + " %" : "0 %";
        const clock = (date) => date.toTimeString().slice(0, 8);

        // MARK: Light and dark

        const wantsLight = matchMedia("(prefers-color-scheme: light)");
        function theme() {
          let chosen = null;
          try { chosen = localStorage.getItem("theme"); } catch { /* A browser may keep nothing. */ }
          document.documentElement.dataset.theme = chosen || (wantsLight.matches ? "light" : "dark");
        }
        theme();
        wantsLight.addEventListener("change", theme);
        $("theme").addEventListener("click", () => {
          const other = document.documentElement.dataset.theme === "light" ? "dark" : "light";
          try { localStorage.setItem("theme", other); } catch { /* Then only for now. */ }
          document.documentElement.dataset.theme = other;
        });

        // MARK: Lines over time

        class Chart {
          constructor(id, lines, format) {
            this.box = $(id + "-chart");
            this.legend = $(id + "-legend");
            this.lines = lines;
            this.format = format;
            this.points = [];
            this.at = null;
            this.box.addEventListener("pointermove", (event) => this.point(event));
            this.box.addEventListener("pointerleave", () => { this.at = null; this.draw(); });
            new ResizeObserver(() => this.draw()).observe(this.box);
          }
          show(points, interval) { this.points = points; this.interval = interval; this.draw(); }
          point(event) {
            const box = this.box.getBoundingClientRect();
            this.at = event.clientX - box.left;
            this.draw();
          }
          static top(value) {
            if (value <= 0) return 1;
            const power = Math.pow(10, Math.floor(Math.log10(value)));
            return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((top) => top >= value);
          }
          draw() {
            const width = this.box.clientWidth, height = this.box.clientHeight;
            if (!width) return;
            const left = 44, right = 6, upper = 8, lower = 20;
            const points = this.points, svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
            const end = points.length ? points[points.length - 1][0] : Date.now();
            const span = Math.max(120000, points.length ? end - points[0][0] : 0);
            const x = (time) => left + (width - left - right) * (1 - (end - time) / span);
            const top = Chart.top(Math.max(...this.lines.flatMap((line) => points.map((p) => p[line.column])), 0));
            const y = (value) => upper + (height - upper - lower) * (1 - value / top);
            for (const part of [0, .5, 1]) {
              const at = y(top * part);
              svg.append(shape("line", { x1: left, x2: width - right, y1: at, y2: at, class: "grid" }));
              svg.append(shape("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, short(top * part)));
            }
            const ticks = Math.max(2, Math.min(5, Math.floor(width / 150)));
            for (let tick = 0; tick <= ticks; tick++) {
              const time = new Date(end - span * (1 - tick / ticks));
              const anchor = tick === 0 ? "start" : tick === ticks ? "end" : "middle";
              const text = span > 240000 ? clock(time).slice(0, 5) : clock(time);
              svg.append(shape("text", { x: x(time.getTime()), y: height - 4, "text-anchor": anchor }, text));
            }
            for (const line of this.lines) {
              if (!points.length) break;
              const path = points.map((p, i) =>
                (i ? "L" : "M") + x(p[0]).toFixed(1) + " " + y(p[line.column]).toFixed(1)).join("");
              if (line.area) {
                const close = `L${x(end).toFixed(1)} ${y(0)}L${x(points[0][0]).toFixed(1)} ${y(0)}Z`;
                svg.append(shape("path", { d: path + close, class: "area" }));
              }
              svg.append(shape("path", { d: path, class: "series c-" + line.color }));
            }
            let shown = points[points.length - 1];
            if (this.at !== null && points.length) {
              for (const p of points) if (Math.abs(x(p[0]) - this.at) < Math.abs(x(shown[0]) - this.at)) shown = p;
              const at = x(shown[0]);
              svg.append(shape("line", { x1: at, x2: at, y1: upper, y2: height - lower, class: "cursor" }));
            }
            fill(this.box, svg);
            this.explain(shown);
          }
          explain(shown) {
            const items = this.lines.map((line) => {
              const item = make("span");
              item.append(make("i", "c-" + line.color), line.name + " ",
                make("b", "", shown ? this.format(shown[line.column]) : "–"));
              return item;
            });
            if (shown && this.at !== null) items.push(make("span", "", clock(new Date(shown[0]))));
            fill(this.legend, ...items);
          }
        }

        const traffic = new Chart("traffic", [
          { name: "requests", column: 1, color: "water", area: true },
        ], short);
        // On a scale of their own: beside all requests they would be a line on the ground.
        const trouble = new Chart("trouble", [
          { name: "errors", column: 2, color: "bad" },
          { name: "refused by limits", column: 3, color: "warn" },
        ], short);
        const latency = new Chart("latency", [
          { name: "99 %", column: 6, color: "violet" },
          { name: "90 %", column: 5, color: "water" },
          { name: "half", column: 4, color: "good" },
        ], millis);

        // MARK: Parts

        function pill(text, kind) { return make("span", "pill " + kind, text); }
        function cell(text, className, label) {
          const td = make("td", className);
          if (text instanceof Node) td.append(text); else td.textContent = text;
          if (label) td.dataset.label = label;
          return td;
        }
        function grid(heads, rows) {
          const table = make("table"), head = make("thead"), line = make("tr"), body = make("tbody");
          for (const [text, className] of heads) line.append(make("th", className || "", text));
          head.append(line);
          body.append(...rows);
          table.append(head, body);
          return table;
        }
        function row(...cells) { const tr = make("tr"); tr.append(...cells); return tr; }

        function tile(name, value, unit, more, className) {
          const box = make("div", "tile"), number = make("div", "value " + (className || ""), value);
          if (unit) number.append(" ", make("small", "", unit));
          box.append(make("div", "name", name), number, make("div", "more", more));
          return box;
        }

        function showTiles(o) {
          const t = o.traffic, n = o.node;
          const total = o.nodes.reduce((sum, node) => sum + (node.requestsPerSecond || 0), 0);
          fill($("tiles"),
            tile("Requests", short(t.requestsPerSecond), "/s", `${short(total)} /s in the cluster`),
            tile("Errors", short(t.errorsPerSecond), "/s", share(t.errorsPerSecond, t.requestsPerSecond) + " of requests",
              t.errorsPerSecond > 0 ? "bad-text" : ""),
            tile("Refused by limits", short(t.limitedPerSecond), "/s",
              share(t.limitedPerSecond, t.requestsPerSecond) + " of requests", t.limitedPerSecond > 0 ? "warn-text" : ""),
            tile("Latency, 99 %", ...millis(t.p99).split(" "), `half within ${millis(t.p50)}`),
            tile("Connections", short(n.connections), "", `of at most ${short(n.connectionsMax)}`),
            tile("Memory", ...bytes(n.residentBytes).split(" "), `${n.openDescriptors} descriptors`));
        }

        function showStatus(o) {
          const n = o.node;
          $("self").textContent = `${n.id} · ${n.version}`;
          document.title = `Sluice · ${n.id}`;
          const ready = $("ready"), cluster = $("cluster");
          ready.textContent = n.ready ? "serving" : "draining";
          ready.className = "pill " + (n.ready ? "good" : "warn");
          const words = { alone: "single node", reached: "cluster", lost: "Redis lost" };
          const r = o.redis;
          cluster.textContent = words[n.cluster] + (r && r.reached && r.p50 > 0 ? ` · Redis ${millis(r.p50)}` : "");
          cluster.className = "pill " + ({ alone: "", reached: "good", lost: "bad" })[n.cluster];
          $("warnings").hidden = !n.warnings.length;
          fill($("warnings"), ...n.warnings.map((text) => make("li", "", text)));
          const offset = r && r.clockOffset !== undefined
            ? ` · Redis's clock ${r.clockOffset >= 0 ? "+" : "−"}${millis(Math.abs(r.clockOffset))}` : "";
          $("footer").textContent = `Up ${duration(n.uptimeSeconds)} · configuration ${n.configuration.slice(0, 8)} · `
            + `${n.workers} worker${n.workers === 1 ? "" : "s"} · ${duration(n.cpuSeconds)} of processor time${offset}`;
        }

        function stateOf(b) {
          if (b.state === "draining") return pill("draining", "warn");
          if (b.state === "down") return pill("down", "bad");
          if (b.breaker !== "closed") return pill(b.breaker === "open" ? "breaker open" : b.breaker, "warn");
          return b.available ? pill("up", "good") : pill("not used here", "warn");
        }

        function showServices(o) {
          const up = o.services.flatMap((s) => s.backends).filter((b) => b.available).length;
          const all = o.services.flatMap((s) => s.backends).length;
          $("service-count").textContent = `${o.services.length} · ${up} of ${all} backends in use`;
          fill($("services"), ...o.services.map((s) => {
            const box = make("div", "service"), head = make("div", "head"), numbers = make("div", "numbers");
            const most = Math.max(...s.backends.map((b) => b.requestsPerSecond), 1);
            const number = (name, value, className) => {
              const item = make("span");
              item.append(name + " ", make("b", className || "", value));
              return item;
            };
            numbers.append(number("requests", short(s.traffic.requestsPerSecond) + " /s"),
              number("errors", short(s.traffic.errorsPerSecond) + " /s", s.traffic.errorsPerSecond > 0 ? "bad-text" : ""),
              number("half", millis(s.traffic.p50)), number("99 %", millis(s.traffic.p99)));
            head.append(make("b", "", s.name), make("span", "mono muted", s.path), numbers);
            const body = make("div", "body");
            body.append(grid(
              [["Backend"], ["State"], ["Requests /s", "number"], ["Errors /s", "number"], ["In flight", "number"],
                ["Votes", "number"], ["Why"]],
              s.backends.map((b) => {
                const rate = make("div");
                rate.append(short(b.requestsPerSecond), meter([[b.requestsPerSecond / most, ""]]));
                const why = make("div", "reason", b.reason + (b.lastError ? ` · last error: ${b.lastError}` : ""));
                return row(cell(b.url, "name-cell mono"), cell(stateOf(b)), cell(rate, "number", "requests/s"),
                  cell(short(b.errorsPerSecond), "number" + (b.errorsPerSecond > 0 ? " bad-text" : ""), "errors/s"),
                  cell(short(b.inFlight), "number", "in flight"),
                  cell(`${b.votesUp} up${b.votesDown ? `, ${b.votesDown} down` : ""}`, "number", "votes"),
                  cell(why, "wide-cell"));
              })));
            box.append(head, body);
            return box;
          }));
        }

        function nameOf(n) {
          const box = make("div"), where = make("div", "mono muted", n.address);
          box.append(n.id);
          if (n.isSelf) box.append(" ", make("small", "", "this one"));
          if (n.state === "cutOff") box.append(" ", make("small", "bad-text", "cut off from Redis"));
          box.append(where);
          return box;
        }
        function showNodes(o) {
          const same = o.nodes.every((n) => !n.shared || n.shared === o.node.shared);
          $("node-count").textContent = `${o.nodes.filter((n) => n.state !== "cutOff").length} alive${same ? "" : " · configurations differ"}`;
          fill($("nodes"), grid(
            [["Node"], ["Requests /s", "number"], ["Errors /s", "number"], ["99 %", "number"],
              ["Version", "number"]],
            o.nodes.map((n) => row(cell(nameOf(n), "name-cell"),
              cell(short(n.requestsPerSecond), "number", "requests/s"),
              cell(short(n.errorsPerSecond), "number" + (n.errorsPerSecond > 0 ? " bad-text" : ""), "errors/s"),
              cell(millis(n.p99), "number", "99 %"),
              cell(`${n.version || "?"} · ${(n.configuration || "?").slice(0, 8)}`, "number muted")))));
        }

        function meter(parts) {
          const box = make("div", "meter");
          for (const [share, kind] of parts) {
            const bar = make("span", kind);
            bar.style.width = 100 * Math.min(1, share) + "%";
            box.append(bar);
          }
          return box;
        }
        // A subject, whose policy it is that counts it, and how much.
        function person(subject, policy, bar, text) {
          const line = make("div", "person"), who = make("div", "mono", subject);
          who.append(" ", make("small", "", policy));
          line.append(who, bar, make("div", "amount", text));
          return line;
        }

        function showLimits(o) {
          if (!o.limits.length) fill($("limits"), make("div", "empty", "No limits are configured."));
          else fill($("limits"), grid(
            [["Policy"], ["Limit"], ["Admitted /s", "number"], ["Refused /s", "number"], ["Share"]],
            o.limits.map((l) => {
              const all = l.admittedPerSecond + l.refusedPerSecond;
              const share = all ? l.admittedPerSecond / all : 0;
              return row(cell(l.name + (l.tier ? ` · ${l.tier}` : ""), "name-cell"),
                cell(`${short(l.limit)} ${l.window ? "in " + l.window : "at once"}` + (l.mode === "shadow" ? " · shadow" : "")),
                cell(short(l.admittedPerSecond), "number", "admitted/s"),
                cell(short(l.refusedPerSecond), "number" + (l.refusedPerSecond > 0 ? " warn-text" : ""), "refused/s"),
                cell(meter([[share, ""], [all ? 1 - share : 0, "warn"]]), "share-cell"));
            })));
          const near = o.subjects.slice(0, 10);
          if (!near.length) fill($("subjects"), make("div", "empty", "Nobody has used any of a limit lately."));
          else fill($("subjects"), ...near.map((s) => {
            const share = s.used / Math.max(1, s.limit);
            const policy = [s.policy, s.tier, s.window ? "in " + s.window : "at once"].filter((text) => text).join(" · ");
            return person(s.subject, policy, meter([[share, share >= 1 ? "bad" : share >= .8 ? "warn" : ""]]),
              `${short(s.used)} of ${short(s.limit)}`);
          }));
          const refused = o.refused.slice(0, 10), most = Math.max(...refused.map((r) => r.count), 1);
          if (!refused.length) fill($("refused"), make("div", "empty", "Nobody was refused lately."));
          else fill($("refused"), ...refused.map((r) =>
            person(r.subject, r.policy, meter([[r.count / most, "warn"]]), `${short(r.count)} times`)));
        }

        // MARK: Events

        const kept = 100;
        let seen = 0;
        function showEvent(event) {
          if (event.id <= seen) return;
          seen = event.id;
          const kinds = { notice: "", warning: "warn", error: "bad", critical: "bad" };
          const line = make("li"), text = make("div", "text"), time = make("time", "", clock(new Date(event.time)));
          time.title = event.time;
          const level = make("span", (kinds[event.level] || "good") + "-text", event.level);
          text.append(make("div", "message", event.message));
          const fields = Object.entries(event.fields).map(([name, value]) => `${name}: ${value}`).join(" · ");
          if (fields) text.append(make("div", "fields", fields));
          line.append(time, level, text);
          $("no-events").hidden = true;
          $("events").prepend(line);
          while ($("events").children.length > kept) $("events").lastChild.remove();
        }
        function listen() {
          const source = new EventSource("/api/events?after=" + seen);
          source.onopen = () => { $("live").textContent = "live"; };
          source.onmessage = (message) => showEvent(JSON.parse(message.data));
          source.onerror = () => {
            $("live").textContent = "not connected";
            source.close();
            setTimeout(listen, 3000);
          };
        }

        // MARK: The beat

        let run = null, heard = null;
        // What was true then must not look as if it were true now.
        function showSilence() {
          document.body.classList.add("stale");
          $("stale").textContent = heard
            ? `This node has not answered since ${clock(heard)}. What is shown is from then.` : "This node does not answer.";
          $("stale").hidden = false;
          $("ready").textContent = "no answer";
          $("ready").className = "pill bad";
          $("cluster").textContent = "";
        }
        async function refresh() {
          try {
            const answer = await fetch("/api/overview", { signal: AbortSignal.timeout(4000) });
            if (!answer.ok) throw new Error(answer.status);
            const o = await answer.json();
            // Another run of the node counts its events anew.
            if (run !== null && o.node.uptimeSeconds + 5 < run) { seen = 0; }
            run = o.node.uptimeSeconds;
            heard = new Date();
            document.body.classList.remove("stale");
            $("stale").hidden = true;
            showStatus(o);
            showTiles(o);
            traffic.show(o.series.points, o.series.intervalSeconds);
            trouble.show(o.series.points, o.series.intervalSeconds);
            latency.show(o.series.points, o.series.intervalSeconds);
            showServices(o);
            showNodes(o);
            showLimits(o);
          } catch {
            showSilence();
          }
          setTimeout(refresh, document.hidden ? 10000 : 2000);
        }
        refresh();
        listen();

        """#
}
