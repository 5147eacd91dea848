// A second reader of HTTP/1.1, as plain and as strict as can be, that shares no line with the gateway's own: what the
// gateway writes has to be readable for the simplest of servers and clients, or somebody reads it differently.

struct PlainMessage: Equatable {
    /// The three parts of the start line.
    var start: [[UInt8]] = []
    /// Names in lower case.
    var fields: [(name: String, value: [UInt8])] = []
    /// What of the body has arrived.
    var body: [UInt8] = []

    func value(_ name: String) -> [UInt8]? { fields.first { $0.name == name }?.value }

    static func == (a: PlainMessage, b: PlainMessage) -> Bool {
        a.start == b.start && a.body == b.body && a.fields.count == b.fields.count
            && zip(a.fields, b.fields).allSatisfy { $0.name == $1.name && $0.value == $1.value }
    }
}

enum PlainRead {
    case needsMore
    /// The head is whole, the body is not.
    case partial(PlainMessage)
    case message(PlainMessage, length: Int)
}

enum PlainKind {
    case request
    /// `hasBody`: whether a body follows where the fields announce one.
    case response(hasBody: (_ status: Int) -> Bool)
}

private let lineEnd: [UInt8] = [0x0d, 0x0a]

/// Reads one message from the front. `ended`: whether nothing more will come.
func readPlainly(_ bytes: ArraySlice<UInt8>, _ kind: PlainKind, ended: Bool = false) throws -> PlainRead {
    var reader = PlainReader(rest: bytes)
    guard let first = try reader.line() else { return .needsMore }
    var message = PlainMessage()
    message.start = first.split(separator: 0x20, maxSplits: 2, omittingEmptySubsequences: false).map(Array.init)
    try require(message.start.count == 3 && !message.start[0].isEmpty, "a start line: \(shown(first))")
    while true {
        guard let line = try reader.line() else { return .needsMore }
        if line.isEmpty { break }
        guard let colon = line.firstIndex(of: 0x3a), colon > line.startIndex else {
            throw Finding("no field: \(shown(line))")
        }
        let name = String(decoding: line[..<colon], as: UTF8.self).lowercased()
        try require(!name.contains { $0 == " " || $0 == "\t" }, "white space in a name: \(shown(line))")
        var value = line[(colon + 1)...]
        while let byte = value.first, byte == 0x20 || byte == 0x09 { value.removeFirst() }
        while let byte = value.last, byte == 0x20 || byte == 0x09 { value.removeLast() }
        message.fields.append((name, Array(value)))
    }
    let framing = try framing(message, kind)
    let complete: Bool
    switch framing {
    case .none: complete = true
    case .length(let length): complete = reader.take(length, into: &message.body)
    case .chunked: complete = try reader.chunks(into: &message.body)
    case .untilEnd:
        complete = ended
        _ = reader.take(.max, into: &message.body)
    }
    return complete ? .message(message, length: reader.rest.startIndex - bytes.startIndex) : .partial(message)
}

private enum PlainFraming {
    case none
    case length(Int)
    case chunked
    case untilEnd
}

private func framing(_ message: PlainMessage, _ kind: PlainKind) throws -> PlainFraming {
    let lengths = message.fields.filter { $0.name == "content-length" }
    let codings = message.fields.filter { $0.name == "transfer-encoding" }
    try require(lengths.count + codings.count <= 1, "more than one framing: \(message.fields)")
    switch kind {
    case .request:
        try require(message.start[2] == Array("HTTP/1.1".utf8), "a version: \(shown(message.start[2]))")
        try require(message.fields.filter { $0.name == "host" }.count == 1, "not one Host: \(message.fields)")
    case .response(let hasBody):
        try require(message.start[0] == Array("HTTP/1.1".utf8), "a version: \(shown(message.start[0]))")
        guard let status = Int(String(decoding: message.start[1], as: UTF8.self)) else {
            throw Finding("a status: \(shown(message.start[1]))")
        }
        if !hasBody(status) { return .none }
    }
    if let coding = codings.first {
        try require(coding.value == Array("chunked".utf8), "a coding: \(shown(coding.value))")
        return .chunked
    }
    if let length = lengths.first {
        let text = String(decoding: length.value, as: UTF8.self)
        guard let number = Int(text), String(number) == text, number >= 0 else { throw Finding("a length: \(text)") }
        return .length(number)
    }
    switch kind {
    case .request: return .none
    case .response: return .untilEnd
    }
}

private struct PlainReader {
    var rest: ArraySlice<UInt8>

    /// The next line without its end. No CR, LF or NUL stands within.
    mutating func line() throws -> ArraySlice<UInt8>? {
        guard let feed = rest.firstIndex(of: 0x0a) else { return nil }
        let line = rest[..<feed]
        try require(line.last == 0x0d, "a bare LF: \(shown(line))")
        let text = line.dropLast()
        try require(!text.contains(0x0d) && !text.contains(0), "a bare CR or a NUL: \(shown(text))")
        rest = rest[(feed + 1)...]
        return text
    }

    /// Whether all of it was there.
    mutating func take(_ length: Int, into body: inout [UInt8]) -> Bool {
        let piece = rest.prefix(length)
        body += piece
        rest = rest.dropFirst(piece.count)
        return piece.count == length
    }

    mutating func chunks(into body: inout [UInt8]) throws -> Bool {
        while true {
            guard let line = try line() else { return false }
            guard let size = Int(String(decoding: line, as: UTF8.self), radix: 16), size >= 0, line.first != 0x2b else {
                throw Finding("a chunk size: \(shown(line))")
            }
            if size == 0 { break }
            guard take(size, into: &body) else { return false }
            guard rest.count >= 2 else { return false }
            try require(rest.prefix(2).elementsEqual(lineEnd), "a chunk is longer than it says")
            rest = rest.dropFirst(2)
        }
        while true {
            guard let line = try line() else { return false }
            if line.isEmpty { return true }
            try require(line.contains(0x3a), "no trailer: \(shown(line))")
        }
    }
}
