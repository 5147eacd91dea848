// What is written of requests, and how they are named: the keys `accessLog` and `requestID` of `gateway`.

import Primitives

extension Configuration {
    package enum AccessLog: Hashable, Sendable {
        case off
        case standardOutput
        case file(path: String)
    }

    package enum LogFormat: String, CaseIterable, Hashable, Sendable { case text, json }

    /// What a line of the access log holds, in its order.
    package enum AccessField: Hashable, Sendable {
        case named(Name)
        /// A field of the request, by its name as the file has it.
        case header(String)

        /// The names are those of JSON's members, and stable.
        package enum Name: String, CaseIterable, Sendable {
            case time, node, client, peer
            case request, method, target, path, `protocol`, host
            case status, outcome, received, sent, microseconds
            case service, backend, backendMicroseconds, retries
            case limit, policy
            case identity, user, org, tier, apiKey
            case requestID, traceID, spanID
            case userAgent, referer
        }

        /// `header:user-agent` for those that are chosen by name.
        package var text: String {
            switch self {
            case .named(let name): name.rawValue
            case .header(let name): "header:\(name)"
            }
        }
    }

    /// Whose word on something is believed.
    package enum Believed: String, CaseIterable, Hashable, Sendable {
        case all
        /// Those in `gateway.trustedProxies`.
        case trusted
        case none
    }

    /// How requests are named.
    package struct RequestID: Hashable, Sendable {
        package let header: String
        /// Whose names are kept.
        package let accept: Believed
        /// Whether answers say it.
        package let respond: Bool
    }
}

extension Configuration.AccessField {
    /// Fields that hold what proves who somebody is: a log is read by more people than that concerns.
    static let secretHeaders = ["authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key"]

    static func parse(_ text: String) throws(Invalid) -> Configuration.AccessField {
        if let name = Name(rawValue: text) { return .named(name) }
        guard text.hasPrefix("header:") else {
            throw Invalid(notOneOf(text, Name.allCases.map(\.rawValue) + ["header:NAME"]))
        }
        let name = try token(String(text.dropFirst(7)), max: Bounds.nameBytesMax)
        guard !secretHeaders.contains(name.lowercased()) else {
            throw Invalid("\(quoted(text)) holds a secret, which must not stand in a log; write identity for who asked")
        }
        return .header(name)
    }

    /// The same in one spelling: names of fields have no case (RFC 9110 §5.1).
    var folded: Configuration.AccessField {
        switch self {
        case .named: self
        case .header(let name): .header(name.lowercased())
        }
    }
}

extension Configuration.Gateway {
    /// Reads `accessLog`: `true`, `false`, a path, or a mapping.
    static func accessLog(
        _ map: MappingReader, format: Configuration.LogFormat
    ) -> (Configuration.AccessLog, Configuration.LogFormat, [Configuration.AccessField]) {
        guard let value = map.take("accessLog"), case .mapping = value.content else {
            let target = map.read("accessLog", default: .standardOutput) { text throws(Invalid) in
                try accessLog(text)
            }
            return (target, format, [])
        }
        let inner = map.section("accessLog")
        let target = inner.read("path", default: Configuration.AccessLog.standardOutput) { text throws(Invalid) in
            try accessLog(text)
        }
        let own = inner.read("format", default: format, choice)
        let fields = inner.readList("fields", default: [], max: Bounds.accessFieldsMax) { text throws(Invalid) in
            try Configuration.AccessField.parse(text)
        }
        let folded = fields.map(\.folded)
        for (index, field) in fields.enumerated() where folded[..<index].contains(folded[index]) {
            inner.report("\(quoted(field.text)) is there twice; write it once", at: "fields")
        }
        inner.finish()
        return (target, own, fields)
    }

    private static func accessLog(_ text: String) throws(Invalid) -> Configuration.AccessLog {
        switch text {
        case "true": return .standardOutput
        case "false": return .off
        default:
            // A bare word is a misspelt Boolean more often than a file in the working directory.
            guard text.contains("/"), !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) else {
                throw Invalid("\(quoted(text)) is neither true, false nor a path; write a path with a slash")
            }
            return .file(path: text)
        }
    }

    /// Reads `requestID`: `true`, `false`, or a mapping.
    static func requestID(_ map: MappingReader) -> Configuration.RequestID? {
        guard let value = map.take("requestID"), case .mapping = value.content else {
            let isOn = map.read("requestID", default: false, boolean)
            return isOn
                ? Configuration.RequestID(header: Defaults.requestIDHeader, accept: .all, respond: true) : nil
        }
        let inner = map.section("requestID")
        let id = Configuration.RequestID(
            header: inner.read("header", default: Defaults.requestIDHeader, requestIDHeader),
            accept: inner.read("accept", default: .all, choice),
            respond: inner.read("respond", default: true, boolean))
        inner.finish()
        return id
    }

    private static func requestIDHeader(_ text: String) throws(Invalid) -> String {
        let name = try token(text, max: Bounds.nameBytesMax)
        let lower = name.lowercased()
        guard lower == Defaults.requestIDHeader.lowercased() || !reservedFields.contains(lower),
            !lower.hasPrefix("x-forwarded-")
        else {
            throw Invalid("\(quoted(text)) means something else; write a name such as X-Request-Id")
        }
        return name
    }
}

extension Configuration {
    /// A header must not mean two things, and an API key must not stand in a log.
    func checkNames(_ map: MappingReader) {
        let keyHeader = auth?.apiKeys?.header
        if let keyHeader, gateway.accessLogFields.contains(where: { $0.folded == .header(keyHeader) }) {
            map.section("gateway").section("accessLog").report(
                "`header:\(keyHeader)` holds API keys, which must not stand in a log; write apiKey for their names",
                at: "fields")
        }
        guard let header = gateway.requestID?.header.lowercased(), let auth else { return }
        let forward = [auth.forward.user, auth.forward.org, auth.forward.tier, auth.forward.key]
        if header == keyHeader || forward.contains(where: { $0?.lowercased() == header }) {
            map.section("gateway").section("requestID").report(
                "\(quoted(header)) is a name in the section auth already; write another", at: "header")
        }
    }
}
