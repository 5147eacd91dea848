// The access log: a line a request, gathered by each worker, written elsewhere (`LogSink`).

import Configuration
import EventLoop
import HTTP1
import Identity
import LinuxIO
import Primitives
import RateLimiting
import Tracing

/// What the limiter said, for the log.
enum LimiterOutcome {
    case none
    case admitted
    case refused
    /// Admitted, though a policy in shadow mode would have refused.
    case refusedInShadow
}

/// What lines look like, prepared once for all workers.
final class AccessLayout: Sendable {
    enum Column: Sendable {
        case named(Configuration.AccessField.Name)
        /// Something of the head, by its place among what is noted.
        case noted(Int)
    }

    let isJSON: Bool
    /// Empty: the lines of old.
    let columns: [(column: Column, name: [UInt8])]
    let noted: [Marking.Noted]
    let node: [UInt8]

    init(_ gateway: Configuration.Gateway, node: String) {
        isJSON = gateway.accessLogFormat == .json
        self.node = Array(node.utf8)
        var noted: [Marking.Noted] = []
        columns = gateway.accessLogFields.map { field in
            let wanted: Marking.Noted
            switch field {
            case .named(.userAgent): wanted = .field(Array("user-agent".utf8))
            case .named(.referer): wanted = .field(Array("referer".utf8))
            case .named(.host): wanted = .authority
            case .named(.path): wanted = .path
            case .header(let name): wanted = .field(Array(name.lowercased().utf8))
            case .named(let name): return (.named(name), Array(name.rawValue.utf8))
            }
            noted.append(wanted)
            return (.noted(noted.count - 1), Array(field.text.utf8))
        }
        self.noted = noted
    }
}

/// One worker's part of the access log.
final class AccessLog: EndOfTurnHandler {
    private let sink: LogSink
    private let layout: AccessLayout
    private let marking: Marking?
    private let loop: Loop
    private var lines = ByteBuffer()
    private var count = 0
    private var secondOfStamp: Int64 = -1
    private var stamp = ""

    /// `nil` where there is none.
    init?(of worker: Worker) {
        guard let sink = worker.node.accessLogSink else { return nil }
        self.sink = sink
        layout = worker.node.accessLayout
        marking = worker.node.marking
        loop = worker.loop
    }

    func write(_ client: ClientConnection, now: MonotonicTime) {
        if count == 0 { loop.atEndOfTurn(self) }
        count += 1
        renewStamp()
        var line = lines.take()
        if !layout.columns.isEmpty {
            writeColumns(client, &line)
        } else if layout.isJSON {
            writeJSON(client, &line)
        } else {
            writeText(client, &line)
        }
        swap(&line, &lines)
    }

    private func renewStamp() {
        let microseconds = SystemClock.wallMicroseconds()
        guard microseconds / 1_000 != secondOfStamp else { return }
        secondOfStamp = microseconds / 1_000
        stamp = SystemClock.timestamp(microseconds: microseconds)
    }

    private func duration(_ client: ClientConnection) -> Int {
        Int(clamping: (SystemClock.monotonic() - client.startedAt).microseconds)
    }

    private func outcome(_ client: ClientConnection) -> StaticString {
        switch client.limiterOutcome {
        case .none: "-"
        case .admitted: "admitted"
        case .refused: "refused"
        case .refusedInShadow: "shadow"
        }
    }

    // MARK: The lines of old

    /// `TIME CLIENT "METHOD TARGET" STATUS RECEIVED SENT MICROSECONDS SERVICE BACKEND LIMIT`, the identity where callers are
    /// asked for one, `id=NAME` where requests have names, and `trace=NAME` where they are traced.
    private func writeText(_ client: ClientConnection, _ line: inout ByteBuffer) {
        line.append(stamp)
        line.append(" ")
        line.append(client.client)
        line.append(" \"")
        line.appendEscaped(client.logged)
        line.append("\" ")
        line.append(decimal: client.status)
        line.append(" ")
        line.append(decimal: client.requestBytes)
        line.append(" ")
        line.append(decimal: client.responseBytes)
        line.append(" ")
        line.append(decimal: duration(client))
        line.append("us ")
        if let service = client.service {
            line.append(service.nameBytes)
            line.append(" ")
            if client.usedBackend { line.append(service.backends[client.backendIndex].url) } else { line.append("-") }
        } else {
            line.append("- -")
        }
        line.append(" ")
        line.append(outcome(client))
        if client.worker.node.authenticates {
            line.append(" ")
            if let caller = client.caller { line.append(caller.logName) } else { line.append("-") }
        }
        if let marks = client.marks, marks.hasID {
            line.append(" id=")
            marks.appendID(to: &line)
        }
        if let trace = client.marks?.trace {
            line.append(" trace=")
            line.append(trace.id)
        }
        line.append("\n")
    }

    private func writeJSON(_ client: ClientConnection, _ line: inout ByteBuffer) {
        line.append("{\"time\":\"")
        line.append(stamp)
        line.append("\",\"client\":\"")
        line.append(client.client)
        line.append("\",\"request\":\"")
        line.appendEscaped(client.logged)
        line.append("\",\"status\":")
        line.append(decimal: client.status)
        line.append(",\"received\":")
        line.append(decimal: client.requestBytes)
        line.append(",\"sent\":")
        line.append(decimal: client.responseBytes)
        line.append(",\"microseconds\":")
        line.append(decimal: duration(client))
        if let service = client.service {
            line.append(",\"service\":\"")
            line.append(service.nameBytes)
            if client.usedBackend {
                line.append("\",\"backend\":\"")
                line.append(service.backends[client.backendIndex].url)
            }
            line.append("\"")
        }
        line.append(",\"limit\":\"")
        line.append(outcome(client))
        if client.worker.node.authenticates, let caller = client.caller {
            line.append("\",\"identity\":\"")
            line.append(caller.logName)
        }
        if let marks = client.marks, marks.hasID {
            line.append("\",\"requestID\":\"")
            marks.appendID(to: &line)
        }
        if let trace = client.marks?.trace {
            line.append("\",\"traceID\":\"")
            line.append(trace.id)
        }
        line.append("\"}\n")
    }

    // MARK: Chosen columns

    private func writeColumns(_ client: ClientConnection, _ line: inout ByteBuffer) {
        var isFirst = true
        for (column, name) in layout.columns {
            let before = line.count
            if layout.isJSON {
                line.append(isFirst ? "{\"" : ",\"")
                line.append(name)
                line.append("\":")
            } else if !isFirst {
                line.append(" ")
            }
            if write(column, client, &line) {
                isFirst = false
            } else if layout.isJSON {
                // What is not there is left out.
                line.truncate(to: before)
            } else {
                line.append("-")
                isFirst = false
            }
        }
        if layout.isJSON { line.append(isFirst ? "{}" : "}") }
        line.append("\n")
    }

    /// A value without spaces: in quotes for JSON alone.
    @inline(__always)
    private func word(_ line: inout ByteBuffer, _ body: (inout ByteBuffer) -> Void) -> Bool {
        if layout.isJSON { line.append("\"") }
        body(&line)
        if layout.isJSON { line.append("\"") }
        return true
    }

    /// A value of others' making: always in quotes.
    @inline(__always)
    private func text(_ line: inout ByteBuffer, _ body: (inout ByteBuffer) -> Void) -> Bool {
        line.append("\"")
        body(&line)
        line.append("\"")
        return true
    }

    private func number(_ value: Int, _ line: inout ByteBuffer) -> Bool {
        line.append(decimal: value)
        return true
    }

    /// Returns whether there is such a value; where there is none nothing is written.
    private func write(_ column: AccessLayout.Column, _ client: ClientConnection, _ line: inout ByteBuffer) -> Bool {
        let name: Configuration.AccessField.Name
        switch column {
        case .noted(let index):
            guard let marks = client.marks, marks.marking === marking, marks.hasNoted(index) else { return false }
            return text(&line) { marks.appendNoted(index, to: &$0) }
        case .named(let known): name = known
        }
        switch name {
        case .time: return word(&line) { $0.append(stamp) }
        case .node: return word(&line) { $0.append(layout.node) }
        case .client: return word(&line) { $0.append(client.client) }
        case .peer: return word(&line) { $0.append(client.peer) }
        case .request, .method, .target: return writeRequest(name, client, &line)
        case .protocol: return word(&line) { $0.append(client.version == .http11 ? "HTTP/1.1" : "HTTP/1.0") }
        case .status: return number(client.status, &line)
        case .outcome: return word(&line) { $0.append(client.outcome.name) }
        case .received: return number(client.requestBytes, &line)
        case .sent: return number(client.responseBytes, &line)
        case .microseconds: return number(duration(client), &line)
        case .service:
            guard let service = client.service else { return false }
            return word(&line) { $0.append(service.nameBytes) }
        case .backend:
            guard client.usedBackend, let service = client.service else { return false }
            return word(&line) { $0.append(service.backends[client.backendIndex].url) }
        case .backendMicroseconds:
            guard client.responseStarted else { return false }
            return number(Int(clamping: (client.answeredAt - client.sentAt).microseconds), &line)
        case .retries: return number(client.resent, &line)
        case .limit:
            guard client.limiterOutcome != .none else { return false }
            return word(&line) { $0.append(outcome(client)) }
        case .policy:
            guard let policy = policy(client) else { return false }
            return word(&line) { $0.append(policy) }
        case .identity, .user, .org, .tier, .apiKey: return writeCaller(name, client, &line)
        case .requestID:
            guard let marks = client.marks, marks.hasID else { return false }
            return word(&line) { marks.appendID(to: &$0) }
        case .traceID, .spanID:
            guard let trace = client.marks?.trace else { return false }
            return word(&line) { if name == .traceID { $0.append(trace.id) } else { $0.append(narrow: trace.span) } }
        // Part of what is noted.
        case .userAgent, .referer, .host, .path: return false
        }
    }

    private func writeRequest(
        _ name: Configuration.AccessField.Name, _ client: ClientConnection, _ line: inout ByteBuffer
    ) -> Bool {
        if client.logged.isEmpty { return false }
        return text(&line) { Self.appendPart(name, of: client.logged, to: &$0) }
    }

    private static func appendPart(
        _ name: Configuration.AccessField.Name, of logged: borrowing ByteBuffer, to line: inout ByteBuffer
    ) {
        let bytes = logged.bytes
        var space = 0
        while space < bytes.count, bytes[space] != 0x20 { space += 1 }
        switch name {
        case .method: line.appendEscaped(bytes.extracting(0..<space))
        case .target: line.appendEscaped(bytes.extracting(min(space + 1, bytes.count)..<bytes.count))
        default: line.appendEscaped(bytes)
        }
    }

    private func writeCaller(
        _ name: Configuration.AccessField.Name, _ client: ClientConnection, _ line: inout ByteBuffer
    ) -> Bool {
        guard client.worker.node.authenticates, let caller = client.caller else { return false }
        if name == .identity { return word(&line) { $0.append(caller.logName) } }
        let value =
            switch name {
            case .user: caller.names.user
            case .org: caller.names.org
            case .tier: caller.names.tier
            default: caller.names.key
            }
        guard !value.isEmpty else { return false }
        return text(&line) { $0.appendEscaped(value.span) }
    }

    /// The policy that has refused, or would have.
    private func policy(_ client: ClientConnection) -> [UInt8]? {
        guard let node = client.lane?.node else { return nil }
        let report: PolicyReport
        switch client.limiterOutcome {
        case .none, .admitted: return nil
        case .refused:
            if node.policyTable == nil { return node.policyNames.first }
            report = client.worker.report
        case .refusedInShadow: report = client.limitReport
        }
        for index in 0..<report.count
        where report[index].isRefused && report[index].isShadow == (client.limiterOutcome == .refusedInShadow) {
            let policy = Int(report[index].policy)
            return policy < node.policyNames.count ? node.policyNames[policy] : nil
        }
        return nil
    }

    func turnEnded() {
        // Whoever has flushed it in between has left nothing.
        guard count > 0 else { return }
        sink.write(lines.array, count: count)
        lines.clear()
        count = 0
    }
}
