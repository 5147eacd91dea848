// `sluice top`: the dashboard in a terminal. Plain lines and the few escapes that every terminal knows.

import Admin
import ArgumentParser
import LinuxIO
import Primitives

struct Top: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Watch the cluster in the terminal, until Ctrl-C.",
        discussion: """
            Asks the admin listener of one node every two seconds. Default: 127.0.0.1:9901. Where its output is no \
            terminal, it prints all once and ends, as with --once.
            """)

    @OptionGroup var options: AdminOptions
    @Flag(help: "Print it once and end.") var once = false

    private static let interval = TimeSpan.seconds(2)

    func run() throws {
        let client = try options.client()
        guard !once, Terminal.isOutput else {
            do {
                print(try text(client))
            } catch let error as AdminClient.AdminError {
                printError("sluice: \(error)")
                throw ExitCode(1)
            }
            return
        }
        let ends = [Signals.terminate, Signals.interrupt, Signals.hangUp]
        Signals.block(ends + [Signals.resized])
        do throws(SystemError) {
            let output = try OutputFile.standardOutput()
            // Another screen, so that what was in the terminal is there again afterwards; long lines are cut, not broken.
            try write("\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l", output)
            try watch(client, output, until: ends)
            try write("\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l", output)
        } catch {
            // The terminal has gone, and with it whoever watched.
        }
    }

    private func watch(_ client: AdminClient, _ output: borrowing Descriptor, until ends: [Int32]) throws(SystemError) {
        while true {
            let page: String
            do { page = try text(client) } catch { page = "sluice: \(error)" }
            let due = SystemClock.monotonic() + Self.interval
            repeat {
                try write(Self.frame(page, Terminal.size), output)
                let rest = max(.zero, due - SystemClock.monotonic())
                let signal = Signals.next(ends + [Signals.resized], within: rest)
                if let signal, ends.contains(signal) { return }
                // At another size the same page is another frame.
                if signal == nil { break }
            } while true
        }
    }

    /// A page as a terminal of that size shows it. No line end behind the last one, which would move all up.
    static func frame(_ page: String, _ size: (rows: Int, columns: Int)?) -> String {
        var lines = page.split(separator: "\n", omittingEmptySubsequences: false)
        if let (rows, columns) = size {
            if lines.count > rows {
                let left = lines.count - rows + 1
                lines = Array(lines.prefix(rows - 1)) + ["… \(left) more lines: a higher window shows them"]
            }
            lines = lines.map { $0.prefix(columns) }
        }
        // What is erased is erased first: behind a full line the cursor stands on its last sign.
        let erased = lines.dropLast().map { "\u{1b}[2K\($0)\n" } + ["\u{1b}[J\(lines.last ?? "")"]
        return "\u{1b}[H" + erased.joined()
    }

    private func write(_ text: String, _ output: borrowing Descriptor) throws(SystemError) {
        try OutputFile.write(output, Array(text.utf8).span)
    }

    private func text(_ client: AdminClient) throws -> String {
        let body = try client.ask("GET", "/api/overview?points=60")
        if options.json { return String(String(decoding: body, as: UTF8.self).dropLast()) }
        return Self.page(try decoded(Overview.self, body))
    }

    // MARK: The page

    /// Subjects of each list; more would push the rest off the screen.
    private static let peopleMax = 8

    static func page(_ seen: Overview) -> String {
        let node = seen.node
        let cluster =
            switch node.cluster {
            case "reached": "cluster"
            case "lost": "Redis lost"
            default: "single node"
            }
        var lines = [
            "Sluice \(node.version)  \(node.id)  \(node.ready ? "serving" : "draining")  \(cluster)  up \(node.uptimeSeconds) s",
            "requests \(number(seen.traffic.requestsPerSecond))/s  errors \(number(seen.traffic.errorsPerSecond))/s  "
                + "refused \(number(seen.traffic.limitedPerSecond))/s  half \(number(seen.traffic.p50)) ms  "
                + "99 % \(number(seen.traffic.p99)) ms  connections \(node.connections)  "
                + "memory \(node.residentBytes >> 20) MiB",
            "requests " + sparkline(seen.series.points.map { $0.count > 1 ? $0[1] : 0 }), "",
        ]
        lines += node.warnings.map { "! \(plain($0))" }
        var rows = [["SERVICE", "BACKEND", "STATE", "REQ/S", "ERR/S", "FLIGHT", "VOTES", "WHY"]]
        for service in seen.services {
            for backend in service.backends {
                let state =
                    backend.state != "up"
                    ? backend.state
                    : backend.breaker != "closed" ? backend.breaker : backend.available ? "up" : "not used"
                rows.append([
                    plain(service.name), plain(backend.url), state, number(backend.requestsPerSecond),
                    number(backend.errorsPerSecond), "\(backend.inFlight)",
                    "\(backend.votesUp)/\(backend.votesUp + backend.votesDown)", plain(backend.reason),
                ])
            }
        }
        lines += [table(rows), ""]
        rows = [["NODE", "ADDRESS", "REQ/S", "ERR/S", "99 % MS", "VERSION"]]
        for node in seen.nodes {
            rows.append([
                plain(node.id) + (node.isSelf ? " *" : node.state == .cutOff ? " (cut off from Redis)" : ""),
                plain(node.address),
                node.requestsPerSecond.map(number) ?? "-", node.errorsPerSecond.map(number) ?? "-",
                node.p99.map(number) ?? "-", plain(node.version ?? "-"),
            ])
        }
        lines.append(table(rows))
        guard !seen.limits.isEmpty else { return lines.joined(separator: "\n") }
        rows = [["LIMIT", "OF", "ADMITTED/S", "REFUSED/S"]]
        for limit in seen.limits {
            rows.append([
                named(limit.name, limit.tier) + (limit.mode == "shadow" ? " (shadow)" : ""),
                "\(limit.limit) \(limit.window.map { "in \($0)" } ?? "at once")",
                number(limit.admittedPerSecond), number(limit.refusedPerSecond),
            ])
        }
        lines += ["", table(rows)]
        if !seen.subjects.isEmpty {
            rows = [["NEAR THEIR LIMIT", "OF", "USED", ""]]
            rows += seen.subjects.prefix(Self.peopleMax).map { use in
                let share = Double(use.used) / Double(max(1, use.limit))
                return [
                    plain(use.subject), named(use.policy, use.tier), "\(use.used) of \(use.limit)", meter(share),
                ]
            }
            lines += ["", table(rows)]
        }
        if !seen.refused.isEmpty {
            rows = [["REFUSED LATELY", "BY", "TIMES"]]
            rows += seen.refused.prefix(Self.peopleMax).map { [plain($0.subject), plain($0.policy), "\($0.count)"] }
            lines += ["", table(rows)]
        }
        return lines.joined(separator: "\n")
    }

    /// What others named must not move the cursor.
    private static func plain(_ text: String) -> String {
        String(text.unicodeScalars.map { $0.value < 0x20 || (0x7f...0x9f).contains($0.value) ? " " : Character($0) })
    }

    private static func named(_ policy: String, _ tier: String?) -> String {
        plain(tier.map { "\(policy) \($0)" } ?? policy)
    }

    private static func number(_ value: Double) -> String {
        if value == 0 || value >= 100 { return "\(Int(value.rounded()))" }
        let scaled = Int((value * 100).rounded())
        let fraction = scaled % 100
        return "\(scaled / 100).\(fraction < 10 ? "0" : "")\(fraction)"
    }

    private static func meter(_ share: Double) -> String {
        let full = Int((min(1, max(0, share)) * 20).rounded())
        return String(repeating: "█", count: full) + String(repeating: "░", count: 20 - full)
    }

    private static func sparkline(_ values: [Double]) -> String {
        let bars = Array("▁▂▃▄▅▆▇█")
        let top = max(values.max() ?? 0, 1)
        return String(values.map { bars[max(0, min(bars.count - 1, Int($0 / top * Double(bars.count - 1) + 0.5)))] })
    }
}
