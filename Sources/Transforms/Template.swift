// Texts with variables, such as `https://{host}/new{rest}`: read at load, filled in for each request.

/// What a request knows of itself.
package enum TemplateVariable: String, CaseIterable, Hashable, Sendable {
    /// The client's address.
    case client
    /// `http` or `https`, as the client asked.
    case scheme
    /// What the client asked for, with its port if it named one; without it.
    case host, hostname
    case method
    /// As the client wrote it, without the query.
    case path
    /// With its question mark; nothing where there is none.
    case query
    case service
    /// Who asks, as a verified credential says; nothing where nobody has said it.
    case user, org, tier, apiKey
    /// The request's name; nothing where requests have none.
    case requestID
    /// The trace's name; nothing where requests are not traced.
    case traceID

    /// What may stand in headers alone: of others' making, it could become more than one segment of a path.
    package var isForHeaders: Bool {
        switch self {
        case .client, .scheme, .host, .hostname, .method, .path, .query, .service: false
        case .user, .org, .tier, .apiKey, .requestID, .traceID: true
        }
    }

    /// Whether it is known once the caller is.
    package var isOfCaller: Bool {
        switch self {
        case .user, .org, .tier, .apiKey: true
        case .client, .scheme, .host, .hostname, .method, .path, .query, .service, .requestID, .traceID: false
        }
    }
}

package struct Template: Hashable, Sendable {
    package enum Part: Hashable, Sendable {
        case text([UInt8])
        case variable(TemplateVariable)
        /// What a group of the rule's pattern matched.
        case group(Int)
        /// What follows the rule's prefix in the path.
        case rest
    }

    package let parts: [Part]

    /// - Parameters:
    ///   - groups: how many there are to refer to.
    ///   - hasRest: whether `{rest}` means something.
    package init(_ text: String, groups: Int = 0, hasRest: Bool = false) throws(TransformError) {
        var parts: [Part] = []
        var literal: [UInt8] = []
        let bytes = Array(text.utf8)
        var i = 0
        while i < bytes.count {
            let byte = bytes[i]
            i += 1
            if byte == UInt8(ascii: "{") || byte == UInt8(ascii: "}"), i < bytes.count, bytes[i] == byte {
                // Twice stands for itself.
                literal.append(byte)
                i += 1
                continue
            }
            if byte == UInt8(ascii: "}") {
                throw TransformError(message: "a `}` without its `{`; write }} for the sign")
            }
            guard byte == UInt8(ascii: "{") else {
                literal.append(byte)
                continue
            }
            let start = i
            while i < bytes.count, bytes[i] != UInt8(ascii: "}") { i += 1 }
            guard i < bytes.count else { throw TransformError(message: "a `{` without its `}`; write {{ for the sign") }
            let name = String(decoding: bytes[start..<i], as: UTF8.self)
            i += 1
            if !literal.isEmpty { parts.append(.text(literal)) }
            literal = []
            parts.append(try Self.part(name, groups, hasRest))
        }
        if !literal.isEmpty { parts.append(.text(literal)) }
        guard parts.count <= Self.partsMax else { throw TransformError(message: "more than \(Self.partsMax) parts") }
        self.parts = parts
    }

    /// A header or a location has a few.
    static let partsMax = 32

    private static func part(_ name: String, _ groups: Int, _ hasRest: Bool) throws(TransformError) -> Part {
        if let variable = TemplateVariable(rawValue: name) { return .variable(variable) }
        if name == "rest", hasRest { return .rest }
        if let group = Int(name), group >= 0 {
            guard groups > 0, group <= groups else {
                throw TransformError(
                    message: groups == 0
                        ? "{\(name)} is no group: there is no pattern with groups"
                        : "{\(name)} is no group: the pattern has \(groups)")
            }
            return .group(group)
        }
        var known = TemplateVariable.allCases.map { "{\($0.rawValue)}" }
        if hasRest { known.append("{rest}") }
        if groups > 0 { known.append("{1}") }
        throw TransformError(message: "{\(name)} is not one of \(known.joined(separator: ", "))")
    }

    /// Its variables.
    package var variables: [TemplateVariable] {
        parts.compactMap { part in if case .variable(let variable) = part { variable } else { nil } }
    }

    /// Whether it is a URL whose host is the one that the client asked for, wholly or in part.
    package var leadsToHost: Bool {
        guard case .text(let first)? = parts.first else { return false }
        let scheme = ["http://", "https://"].first { first.starts(with: $0.utf8) }
        guard let scheme, !Self.endsHost(first.dropFirst(scheme.utf8.count)) else { return false }
        for part in parts.dropFirst() {
            switch part {
            case .text(let text): if Self.endsHost(text[...]) { return false }
            case .variable(.host), .variable(.hostname): return true
            case .variable, .group, .rest: break
            }
        }
        return false
    }

    private static func endsHost(_ text: ArraySlice<UInt8>) -> Bool { text.contains { "/?#".utf8.contains($0) } }

    /// What stands in it as it is.
    package var literals: [UInt8] {
        parts.flatMap { part -> [UInt8] in if case .text(let text) = part { text } else { [] } }
    }
}
