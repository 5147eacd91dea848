// `sluice limits simulate`: an access log against limits.

import ArgumentParser
import Configuration
import FoundationEssentials
import Gateway
import LinuxIO
import Primitives
import RateLimiting

extension Limits {
    struct Simulate: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Replay an access log, and say who would have been refused.",
            discussion: """
                Decides each request of the log by the limiter's own rules, at the time that the log gives it: by the \
                policies of --config, by one of them with other numbers (--policy login --limit 10), or by one that is \
                only on the command line (--limit 100 --window 1m --key ip). Nothing is changed anywhere.

                Logs are a node's own, as text or JSON (chosen fields as JSON, with time, client and request), or in \
                the common or combined format of nginx and Apache; the lines of several nodes have to be in the order \
                of time (sort -m). A log does not tell everything: \
                policies by organisation, API key or header and those of requests at once are left out, and everyone \
                has the limit of no tier. Lines that cannot be read are counted and told of by number.
                """)

        @Option(help: ArgumentHelp("The access log; - reads standard input.", valueName: "file")) var log: String
        @Option(name: .shortAndLong, help: "A node's configuration, for its services and policies.") var config: String?
        @Option(
            name: .customLong("set"),
            help: ArgumentHelp(
                "Sets a key of the configuration, as `sluice run` does. May be repeated.", valueName: "key=value"))
        var overrides: [String] = []
        @Option(help: ArgumentHelp("Only this policy of the configuration.", valueName: "name")) var policy: String?
        @Option(help: ArgumentHelp("Requests in a window.", valueName: "count")) var limit: Int?
        @Option(help: ArgumentHelp("100ms to 30d. Default: 1s, or the policy's.", valueName: "duration"))
        var window: String?
        @Option(
            help: ArgumentHelp(
                "Whom to count: ip, user, service or global. Default: ip, or the policy's.", valueName: "key"))
        var key: String?
        @Option(help: ArgumentHelp("How many subjects to show.", valueName: "count")) var top = 20
        @Flag(help: "Print JSON.") var json = false

        private static let linesShown = 10

        func validate() throws {
            if config == nil {
                if policy != nil { throw ValidationError("--policy needs --config FILE") }
                if !overrides.isEmpty { throw ValidationError("--set needs --config FILE") }
                if limit == nil { throw ValidationError("say what to try: --config FILE, or --limit COUNT") }
                if key == "service" {
                    throw ValidationError("--key service needs --config FILE, which names the services")
                }
            }
            if config != nil, policy == nil, limit == nil, window != nil || key != nil {
                throw ValidationError(
                    "say which policy gets another window or key: --policy NAME, or --limit COUNT for a new one")
            }
            guard (0...100_000).contains(top) else { throw ValidationError("--top: write a number in 0...100000") }
        }

        func run() throws {
            let configuration = try Limits.loaded(config, overrides)
            let (policies, left) = try chosen(configuration)
            for note in left { printError("sluice: \(note)") }
            let rehearsal = LimitRehearsal(policies, configuration, seed: SystemClock.random64())
            var reading = Reading()
            do throws(SystemError) {
                try reading.read(log) { entry, line in rehearsal.take(entry, line: line) }
            } catch {
                throw refusal("\(log): \(error.reason)")
            }
            if let program = reading.unpacker {
                let file = log == "-" ? "" : " \(log)"
                throw refusal("\(log) is compressed: \(program)\(file) | sluice limits simulate --log - …")
            }
            for bad in reading.bad { printError("\(log):\(bad.line): \(bad.reason)") }
            if reading.badCount > reading.bad.count {
                printError("\(log): \(reading.badCount - reading.bad.count) more lines that cannot be read")
            }
            // That nobody would have been refused is not known of requests that nobody could read.
            if reading.lines > 0, reading.badCount == reading.lines {
                throw refusal("\(log): no line can be read: it is no access log of a kind that is known, or no UTF-8")
            }
            let answer = SimulationAnswer(rehearsal, lines: reading.lines, bad: reading.badCount, top: top, left: left)
            if json { return try printJSON(answer) }
            print(answer.text)
        }

        /// What is tried, and what is left out and why.
        private func chosen(_ configuration: Configuration?) throws -> ([RehearsedPolicy], [String]) {
            let span = try window.map {
                try given("--window", $0) { text throws(Invalid) in try Configuration.window(text) }
            }
            let counted = try key.map { try given("--key", $0) { text throws(Invalid) in try Limits.counting(text) } }
            if let limit, !(1...1_000_000_000).contains(limit) {
                throw refusal("--limit \(limit): write a number in 1...1000000000")
            }
            var list = configuration?.rateLimit.map { RehearsedPolicy.all(of: $0) } ?? []
            if let policy {
                _ = try Limits.policies(configuration, named: policy)
                list = list.filter { $0.policy.name == policy }
            } else if let limit {
                let rule = Policy(
                    name: "trial", limit: limit, window: span ?? .seconds(1), burst: limit, key: counted ?? .ip)
                if let obstacle = RehearsedPolicy(rule).obstacle { throw refusal("--key: \(obstacle)") }
                return ([RehearsedPolicy(rule)], [])
            }
            guard !list.isEmpty else {
                throw refusal("\(config ?? "") has no limits: give one with --limit COUNT")
            }
            if policy != nil { list = list.map { $0.changed(limit: limit, window: span, key: counted) } }
            let left = list.compactMap { item in
                item.obstacle.map { "policy \(item.policy.name) is left out: \($0)" }
            }
            list.removeAll { $0.obstacle != nil }
            guard !list.isEmpty else {
                throw refusal("\(left.joined(separator: "; ")): try another with --limit COUNT")
            }
            return (list, left)
        }
    }

    private static func counting(_ text: String) throws(Invalid) -> PolicyKey {
        PolicyKey(try Configuration.PolicyKey(parsing: text))
    }

    /// Reads a log line by line, however long it is.
    struct Reading {
        private(set) var lines = 0
        private(set) var badCount = 0
        /// The first of them.
        private(set) var bad: [(line: Int, reason: String)] = []
        /// What makes lines of it, where it is compressed.
        private(set) var unpacker: String?

        private static let badMax = 10
        private static let chunkSize = 256 << 10
        /// No line of a log is longer: a request line has at most some 8 KiB, and escapes make six bytes of one.
        private static let lineBytesMax = 64 << 10

        mutating func read(
            _ path: String, _ body: (AccessLogEntry, Int) -> Void
        ) throws(SystemError) {
            let file = path == "-" ? try InputFile.standardInput() : try InputFile.open(path: path)
            var progress = Progress("MiB read")
            progress.total = (InputFile.size(file) ?? 0) >> 20
            var chunk = [UInt8](repeating: 0, count: Self.chunkSize)
            var rest: [UInt8] = []
            var isTooLong = false
            var bytes = 0
            while true {
                let n = try InputFile.read(file, into: &chunk)
                guard n > 0 else { break }
                var start = 0
                if bytes == 0 {
                    unpacker = Self.unpacker(of: chunk[..<n])
                    if unpacker != nil { return }
                    if chunk[..<n].starts(with: Self.byteOrderMark) { start = Self.byteOrderMark.count }
                }
                while let end = chunk[start..<n].firstIndex(of: 0x0a) {
                    if rest.isEmpty {
                        take(chunk[start..<end], isTooLong, body)
                    } else {
                        rest += chunk[start..<end]
                        take(rest[...], isTooLong, body)
                        rest.removeAll(keepingCapacity: true)
                    }
                    isTooLong = false
                    start = end + 1
                }
                if rest.count + n - start > Self.lineBytesMax {
                    isTooLong = true
                    rest.removeAll(keepingCapacity: true)
                } else {
                    rest += chunk[start..<n]
                }
                let before = bytes >> 20
                bytes += n
                progress.advance(bytes >> 20 - before)
            }
            if !rest.isEmpty || isTooLong { take(rest[...], isTooLong, body) }
        }

        /// Some editors begin a file in UTF-8 with it.
        private static let byteOrderMark: [UInt8] = [0xef, 0xbb, 0xbf]

        /// By what files of each kind begin with.
        private static func unpacker(of start: ArraySlice<UInt8>) -> String? {
            let kinds: [(mark: [UInt8], program: String)] = [
                ([0x1f, 0x8b], "zcat"), ([0x28, 0xb5, 0x2f, 0xfd], "zstdcat"),
                ([0xfd, 0x37, 0x7a, 0x58, 0x5a], "xzcat"),
                ([0x42, 0x5a, 0x68], "bzcat"),
            ]
            return kinds.first { start.starts(with: $0.mark) }?.program
        }

        private mutating func take(_ line: ArraySlice<UInt8>, _ isTooLong: Bool, _ body: (AccessLogEntry, Int) -> Void)
        {
            lines += 1
            do throws(AccessLogEntry.Unreadable) {
                if isTooLong || line.count > Self.lineBytesMax {
                    throw AccessLogEntry.Unreadable("longer than \(Self.lineBytesMax) bytes")
                }
                body(try AccessLogEntry(line.last == 0x0d ? line.dropLast() : line), lines)
            } catch {
                badCount += 1
                if bad.count < Self.badMax { bad.append((lines, error.description)) }
            }
        }
    }
}

/// What a replay has come to.
struct SimulationAnswer: Encodable {
    struct Total: Encodable {
        var policy: String
        var limit: Int
        var window: String
        var key: String
        var mode: String
        var requests: Int
        var refused: Int
        /// Of its requests, 0...1.
        var share: Double
        var subjects: Int
        var subjectsRefused: Int
    }

    struct Subject: Encodable {
        var subject: String
        var policy: String
        var requests: Int
        var refused: Int
        var share: Double
        var firstRefusal: String
        var firstRefusalLine: Int
    }

    var lines: Int
    var badLines: Int
    /// Older than a line before them, and taken as of its time.
    var disorderedLines: Int
    var from: String?
    var to: String?
    /// Requests that limits have decided, and those that one at least has refused.
    var requests: Int
    var refused: Int
    /// Requests that no limit decides: whose path no service has, that no policy covers, that the gateway answers before.
    var unrouted: Int
    var uncovered: Int
    var unlimited: Int
    var subjectsForgotten: Int
    var notes: [String]
    var policies: [Total]
    var subjects: [Subject]

    init(_ rehearsal: LimitRehearsal, lines: Int, bad: Int, top: Int, left: [String]) {
        func share(_ part: Int, _ whole: Int) -> Double { whole == 0 ? 0 : Double(part) / Double(whole) }
        self.lines = lines
        badLines = bad
        disorderedLines = rehearsal.disordered
        from = rehearsal.span.map { SystemClock.timestamp(microseconds: $0.from) }
        to = rehearsal.span.map { SystemClock.timestamp(microseconds: $0.to) }
        requests = rehearsal.requests
        refused = rehearsal.refused
        unrouted = rehearsal.others.unrouted
        uncovered = rehearsal.others.uncovered
        unlimited = rehearsal.others.unlimited
        subjectsForgotten = rehearsal.forgotten
        notes = left
        policies = rehearsal.policies.indices.map { index in
            let (policy, total) = (rehearsal.policies[index], rehearsal.totals[index])
            let subjects = rehearsal.subjects(of: index)
            return Total(
                policy: policy.name, limit: policy.limit, window: "\(policy.window)", key: "\(policy.key)",
                mode: policy.mode == .shadow ? "shadow" : "enforce", requests: total.requests, refused: total.refused,
                share: share(total.refused, total.requests), subjects: subjects.all,
                subjectsRefused: subjects.refused)
        }
        subjects = rehearsal.refusedMost(top).map { row in
            Subject(
                subject: row.subject, policy: row.policy, requests: row.tally.requests, refused: row.tally.refused,
                share: share(row.tally.refused, row.tally.requests),
                firstRefusal: SystemClock.timestamp(microseconds: row.tally.first?.time ?? 0),
                firstRefusalLine: row.tally.first?.line ?? 0)
        }
    }

    var text: String {
        func percent(_ share: Double) -> String {
            let tenths = Int((share * 1_000).rounded())
            return "\(tenths / 10).\(tenths % 10) %"
        }
        var parts = ["\(lines) lines"]
        if let from, let to { parts[0] += " from \(from) to \(to)" }
        parts.append(
            "\(requests) requests decided, \(refused) refused (\(percent(requests == 0 ? 0 : Double(refused) / Double(requests))))"
        )
        let others = [
            (badLines, "cannot be read"), (disorderedLines, "older than a line before them"),
            (unrouted, "of no service"), (uncovered, "of no policy"), (unlimited, "answered before any limit"),
            (subjectsForgotten, "subjects with few refusals forgotten for lack of room"),
        ].filter { $0.0 > 0 }.map { "\($0) \($1)" }
        if !others.isEmpty { parts.append(others.joined(separator: ", ")) }
        parts.append("")
        parts.append(
            table(
                [["POLICY", "LIMIT", "KEY", "REQUESTS", "REFUSED", "SHARE", "SUBJECTS", "OF THEM REFUSED"]]
                    + policies.map {
                        [
                            $0.mode == "shadow" ? "\($0.policy) (shadow)" : $0.policy, "\($0.limit)/\($0.window)",
                            $0.key,
                            "\($0.requests)", "\($0.refused)", percent($0.share), "\($0.subjects)",
                            "\($0.subjectsRefused)",
                        ]
                    }))
        guard !subjects.isEmpty else {
            return (parts + ["", "nobody would have been refused"]).joined(separator: "\n")
        }
        parts.append("")
        parts.append(
            table(
                [["SUBJECT", "POLICY", "REQUESTS", "REFUSED", "SHARE", "FIRST REFUSAL", "LINE"]]
                    + subjects.map {
                        [
                            $0.subject, $0.policy, "\($0.requests)", "\($0.refused)", percent($0.share),
                            $0.firstRefusal,
                            "\($0.firstRefusalLine)",
                        ]
                    }))
        return parts.joined(separator: "\n")
    }
}
