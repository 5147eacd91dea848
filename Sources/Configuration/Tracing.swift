// Traces: the section `tracing`.

package import Primitives

extension Configuration {
    /// How requests are traced (W3C Trace Context).
    package struct Tracing: Hashable, Sendable {
        /// Of the traces that begin here.
        package let sample: TraceShare
        /// Whose traces are continued.
        package let accept: Believed
        /// Where spans go; `nil`: nowhere.
        package let otlp: OTLP?
    }

    /// A share in millionths.
    package struct TraceShare: Hashable, Sendable, CustomStringConvertible {
        package let millionths: Int

        package static let all = TraceShare(millionths: 1_000_000)

        package var description: String {
            var digits = String(millionths % 10_000)
            digits = String(repeating: "0", count: 4 - digits.count) + digits
            while digits.last == "0" { digits.removeLast() }
            return "\(millionths / 10_000)\(digits.isEmpty ? "" : ".\(digits)")%"
        }
    }

    /// Where spans are sent by OTLP over HTTP.
    package struct OTLP: Hashable, Sendable {
        package let endpoint: OTLPEndpoint
        /// What a collector asks for beside the spans, such as `Authorization`.
        package let headers: [ProbeHeader]
        /// `service.name` of the spans.
        package let serviceName: String
        /// How long spans wait for others at most.
        package let interval: TimeSpan
        /// The longest time for sending a batch and hearing what became of it.
        package let timeout: TimeSpan
        /// Spans that may wait; beyond it they are dropped.
        package let queue: Int
    }

    package struct OTLPEndpoint: Hashable, Sendable, CustomStringConvertible {
        /// As the file has it.
        package let url: String
        package let host: Host
        package let port: UInt16
        package let path: String

        package var description: String { url }
    }
}

extension Configuration.Tracing {
    init(_ map: MappingReader) {
        sample = map.read("sample", default: .all) { text throws(Invalid) in
            try Configuration.TraceShare(parsing: text)
        }
        accept = map.read("accept", default: .all, choice)
        otlp = map.optionalSection("otlp").flatMap { Configuration.OTLP($0) }
        map.finish()
    }
}

extension Configuration.TraceShare {
    /// `10%`, or `0.1%`: at most four digits behind the point.
    init(parsing text: String) throws(Invalid) {
        let error = Invalid("\(quoted(text)) is not a percentage; write one in 0%...100%, such as 10% or 0.1%")
        guard text.hasSuffix("%") else { throw error }
        let parts = text.dropLast().split(separator: ".", omittingEmptySubsequences: false)
        guard let first = parts.first, parts.count <= 2, let whole = try? integer(String(first), in: 0...100) else {
            throw error
        }
        var millionths = whole * 10_000
        if parts.count == 2 {
            let digits = parts[1].utf8
            guard !digits.isEmpty, digits.count <= 4, digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
                let number = Int(parts[1])
            else { throw error }
            millionths += number * [1_000, 100, 10, 1][digits.count - 1]
        }
        guard millionths <= 1_000_000 else { throw error }
        self.init(millionths: millionths)
    }
}

extension Configuration.OTLP {
    fileprivate init?(_ map: MappingReader) {
        let endpoint = map.readRequired("endpoint", hint: "write one such as http://localhost:4318/v1/traces") {
            text throws(Invalid) in
            try Configuration.OTLPEndpoint(parsing: text)
        }
        headers = headerFields(
            map,
            reserved: [
                "host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding",
            ],
            because: "is the exporter's own")
        serviceName = map.read("serviceName", default: Defaults.traceServiceName) { text throws(Invalid) in
            guard !text.isEmpty, text.utf8.count <= Bounds.nameBytesMax,
                text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
            else {
                throw Invalid(
                    "\(quoted(text)) is not a name; use 1 to \(Bounds.nameBytesMax) characters without spaces")
            }
            return text
        }
        interval = map.read("interval", default: Defaults.spanInterval) { text throws(Invalid) in
            try duration(text, in: .milliseconds(10) ... .seconds(300))
        }
        timeout = map.read("timeout", default: Defaults.spanTimeout) { text throws(Invalid) in
            try duration(text, in: .milliseconds(10) ... .seconds(300))
        }
        queue = map.read("queue", default: Defaults.spanQueue) { text throws(Invalid) in
            try integer(text, in: 1...Bounds.spanQueueMax)
        }
        map.finish()
        guard let endpoint else { return nil }
        self.endpoint = endpoint
    }
}

extension Configuration.OTLPEndpoint {
    init(parsing url: String) throws(Invalid) {
        let server = try PlainHTTP(
            parsing: url, port: 4318, such: "one such as http://localhost:4318/v1/traces",
            noUser: "the endpoint can not hold a user or a password; write headers: {Authorization: \"Basic …\"}",
            noTLS:
                "spans are not sent over TLS; write http:// and the address of a collector on this machine, which passes them on"
        )
        (host, port) = (server.host, server.port)
        path = server.path.isEmpty ? "/v1/traces" : server.path
        self.url = url
    }

    /// The value of `Host`.
    package var authority: String { port == 80 ? "\(host)" : "\(host):\(port)" }
}
