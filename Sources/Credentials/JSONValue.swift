// JSON of any shape: what a token says, before anybody knows what it should say.

import FoundationEssentials

enum JSONValue: Decodable, Equatable, Sendable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    /// An object in JSON text; `nil` for anything else, and where an object in it has two members of one name: readers
    /// differ in which of them counts (RFC 8259 §4), so the gateway and a backend could each go by another one.
    static func object(_ bytes: [UInt8]) -> [String: JSONValue]? {
        // A payload is text (RFC 7519 §7.2): other encodings would be read here in one way and there in another.
        guard String(validating: bytes, as: UTF8.self) != nil,
            isShallow(bytes), case .object(let members)? = try? JSONDecoder().decode(JSONValue.self, from: Data(bytes)),
            !repeatsMember(bytes)
        else { return nil }
        return members
    }

    /// Levels of nesting. Claims have two or three; a thousand brackets only keep a parser busy.
    static let depthMax = 16

    /// Whether no value lies deeper than `depthMax`. Brackets within strings nest nothing.
    private static func isShallow(_ bytes: [UInt8]) -> Bool {
        var depth = 0
        var inString = false
        var escaped = false
        for byte in bytes {
            if inString {
                if escaped {
                    escaped = false
                } else if byte == UInt8(ascii: "\\") {
                    escaped = true
                } else if byte == UInt8(ascii: "\"") {
                    inString = false
                }
                continue
            }
            switch byte {
            case UInt8(ascii: "\""): inString = true
            case UInt8(ascii: "["), UInt8(ascii: "{"):
                depth += 1
                if depth > depthMax { return false }
            case UInt8(ascii: "]"), UInt8(ascii: "}"): depth -= 1
            default: break
            }
        }
        return true
    }

    /// Whether an object of JSON text, which is known to be well formed, has a member twice. Names are compared as they
    /// read: `s\u0075b` is `sub`.
    private static func repeatsMember(_ bytes: [UInt8]) -> Bool {
        /// Of each object and array that is open, the names so far; `nil` for an array.
        var open: [Set<String>?] = []
        var expectsName = false
        var index = 0
        while index < bytes.count {
            switch bytes[index] {
            case UInt8(ascii: "{"):
                open.append([])
                expectsName = true
            case UInt8(ascii: "["):
                open.append(nil)
                expectsName = false
            case UInt8(ascii: "}"), UInt8(ascii: "]"): _ = open.popLast()
            case UInt8(ascii: ","): expectsName = open.last.map { $0 != nil } ?? false
            case UInt8(ascii: "\""):
                let start = index
                index += 1
                while index < bytes.count, bytes[index] != UInt8(ascii: "\"") {
                    index += bytes[index] == UInt8(ascii: "\\") ? 2 : 1
                }
                guard expectsName else { break }
                expectsName = false
                guard let name = memberName(bytes[start..<min(index + 1, bytes.count)]) else { return true }
                if open[open.count - 1]?.insert(name).inserted == false { return true }
            default: break
            }
            index += 1
        }
        return false
    }

    /// What a string between quotes says.
    private static func memberName(_ literal: ArraySlice<UInt8>) -> String? {
        if literal.contains(UInt8(ascii: "\\")) { return try? JSONDecoder().decode(String.self, from: Data(literal)) }
        return String(decoding: literal.dropFirst().dropLast(), as: UTF8.self)
    }

    var text: String? {
        if case .string(let value) = self { return value }
        return nil
    }
}
