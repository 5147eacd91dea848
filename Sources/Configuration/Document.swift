// From YAML text to a tree of ours: plain values with their places, bounded in size and depth.
//
// Overrides and variables work on this tree and not on text, so a value can never inject structure. Yams resolves
// types with YAML 1.1's rules (`no` is false, `1:30` is 90); we keep every scalar as text and each key's own reader
// decides what it means.

import Yams

/// Where a value was written.
enum Origin: Hashable {
    case file(line: Int, column: Int)
    /// The index of the override.
    case override(Int)
}

/// One value of the document.
struct Value {
    enum Content {
        case scalar(String)
        case mapping([Entry])
        case sequence([Value])
        /// An empty value, `~` or `null`: as if the key were absent.
        case null
        /// An error about it is reported already; whoever reads it says nothing more.
        case invalid
    }

    var content: Content
    var origin: Origin

    /// Of a list. Overrides that number what was not there (`trustedProxies.0`, `trustedProxies.1`) make a mapping, since
    /// they do not know what it is to be; in the place of a list it is one.
    var elements: [Value]? {
        switch content {
        case .sequence(let elements): return elements
        case .mapping(let entries):
            guard case .override = origin, !entries.isEmpty,
                entries.enumerated().allSatisfy({ $0.element.key == "\($0.offset)" })
            else { return nil }
            return entries.map(\.value)
        case .scalar, .null, .invalid: return nil
        }
    }

    var isSection: Bool {
        switch content {
        case .mapping, .sequence: true
        case .scalar, .null, .invalid: false
        }
    }

    /// What it is, for errors.
    var kind: String {
        switch content {
        case .scalar: "a single value"
        case .mapping: "a mapping"
        case .sequence: "a list"
        case .null: "empty"
        case .invalid: "invalid"
        }
    }
}

struct Entry {
    var key: String
    let origin: Origin
    var value: Value
}

/// Reads one document. Aliases are followed; what they expand to counts towards the bounds.
enum Document {
    struct Failure: Error {
        let origin: Origin
        let message: String
    }

    static func parse(_ text: String) throws(Failure) -> Value {
        var repeated: [Failure] = []
        let value = try parse(text, repeated: &repeated)
        if let first = repeated.first { throw first }
        return value
    }

    /// The same of a text in which keys stand more than once: these are told, and the rest is read.
    static func parse(_ text: String, repeated: inout [Failure]) throws(Failure) -> Value {
        try checkScalars(of: text)
        try checkAliases(of: text)
        var keys = RepeatedKeys(text)
        while true {
            do {
                guard let root = try Parser(yaml: keys.text, resolver: .basic, encoding: .utf8).singleRoot() else {
                    throw Failure(
                        origin: .file(line: 1, column: 1), message: "the file is empty; it needs at least one service")
                }
                var nodes = 0
                return try convert(root, depth: 0, nodes: &nodes, keys)
            } catch let failure as Failure {
                throw failure
            } catch YamlError.duplicatedKeysInMapping(let names, let context) {
                let name = names.first ?? ""
                let found = failure(repeating: name, at: context.mark)
                guard keys.rename(name, line: context.mark.line, column: context.mark.column) else { throw found }
                repeated.append(found)
            } catch let error as YamlError {
                throw failure(error)
            } catch {
                throw Failure(origin: .file(line: 1, column: 1), message: "the file can not be read as YAML: \(error)")
            }
        }
    }

    /// The value of an override: a YAML scalar or flow collection; text that is no YAML (`[::1]:8080`) is itself.
    static func parseOverride(_ text: String, index: Int) throws(Failure) -> Value {
        let origin = Origin.override(index)
        if text.unicodeScalars.allSatisfy({ $0 == " " }) { return Value(content: .null, origin: origin) }
        do throws(Failure) {
            try checkScalars(of: text)
            try checkAliases(of: text)
        } catch {
            throw Failure(origin: origin, message: error.message)
        }
        guard let node = try? Parser(yaml: text, resolver: .basic, encoding: .utf8).singleRoot() else {
            return Value(content: .scalar(text), origin: origin)
        }
        var nodes = 0
        do throws(Failure) {
            return relocated(try convert(node, depth: 0, nodes: &nodes, RepeatedKeys("")), to: origin)
        } catch {
            throw Failure(origin: origin, message: error.message)
        }
    }

    private static func relocated(_ value: Value, to origin: Origin) -> Value {
        let content: Value.Content =
            switch value.content {
            case .scalar, .null, .invalid: value.content
            case .sequence(let elements): .sequence(elements.map { relocated($0, to: origin) })
            case .mapping(let entries):
                .mapping(entries.map { Entry(key: $0.key, origin: origin, value: relocated($0.value, to: origin)) })
            }
        return Value(content: content, origin: origin)
    }

    private static func convert(
        _ node: Node, depth: Int, nodes: inout Int, _ keys: RepeatedKeys
    ) throws(Failure) -> Value {
        let mark = node.mark
        let origin = Origin.file(line: mark?.line ?? 1, column: mark?.column ?? 1)
        nodes += 1
        if nodes > Bounds.nodesMax {
            throw Failure(
                origin: origin,
                message: "more than \(Bounds.nodesMax) values, aliases expanded; split the configuration")
        }
        if depth > Bounds.depthMax {
            throw Failure(origin: origin, message: "nested deeper than \(Bounds.depthMax) levels")
        }
        let tag = node.tag.description
        if tag != "!" && !tag.hasPrefix("tag:yaml.org,2002:") {
            throw Failure(origin: origin, message: "the YAML tag \(quoted(tag)) means nothing here; remove it")
        }
        switch node {
        case .scalar(let scalar):
            return Value(content: isNull(scalar) ? .null : .scalar(scalar.string), origin: origin)
        case .sequence(let sequence):
            var elements: [Value] = []
            for element in sequence {
                elements.append(try convert(element, depth: depth + 1, nodes: &nodes, keys))
            }
            return Value(content: .sequence(elements), origin: origin)
        case .mapping(let mapping):
            var entries: [Entry] = []
            for (key, value) in mapping {
                let place = Origin.file(line: key.mark?.line ?? 1, column: key.mark?.column ?? 1)
                guard case .scalar(let name) = key else {
                    throw Failure(origin: place, message: "a key must be a name, not a list or a mapping")
                }
                nodes += 1
                entries.append(
                    Entry(
                        key: name.string, origin: place,
                        value: try convert(value, depth: depth + 1, nodes: &nodes, keys)))
            }
            return Value(content: .mapping(keys.merged(entries)), origin: origin)
        case .alias:
            throw Failure(origin: origin, message: "an alias without its anchor")
        }
    }

    private static func isNull(_ scalar: Node.Scalar) -> Bool {
        scalar.style == .plain && ["", "~", "null", "Null", "NULL"].contains(scalar.string)
    }

    /// YAML allows neither control characters nor unpaired surrogates (YAML 1.2.2 §5.1). The library finds them too
    /// but tells no line.
    private static func checkScalars(of text: String) throws(Failure) {
        var line = 1
        var column = 1
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x0a:
                line += 1
                column = 1
                continue
            case 0x09, 0x0d, 0x20...0x7e, 0x85, 0xa0...0xfffd, 0x10000...0x10ffff:
                column += 1
            default:
                let hex = String(scalar.value, radix: 16, uppercase: true)
                let code = String(repeating: "0", count: max(0, 4 - hex.count)) + hex
                throw Failure(
                    origin: .file(line: line, column: column), message: "the character U+\(code) is not allowed in YAML"
                )
            }
        }
    }

    /// Counts everything that could be an alias of something in the text, in comments and strings too: only YAML's own
    /// lexer knows better, and it runs too late to save us. An alias of nothing ends its work.
    private static func checkAliases(of text: String) throws(Failure) {
        var aliases = names(behind: "*", in: text)
        guard aliases.count > Bounds.aliasesMax else { return }
        let anchors = Set(names(behind: "&", in: text))
        aliases.removeAll { !anchors.contains($0) }
        guard aliases.count > Bounds.aliasesMax else { return }
        let before = text.unicodeScalars[..<aliases[Bounds.aliasesMax].startIndex]
            .split(separator: "\n", omittingEmptySubsequences: false)
        throw Failure(
            origin: .file(line: before.count, column: max(1, before.last?.count ?? 1)),
            message: "more than \(Bounds.aliasesMax) YAML aliases (`*name` where `&name` stands too); "
                + "write the values out")
    }

    /// The names of aliases or anchors, as YAML takes them.
    private static func names(behind sign: Unicode.Scalar, in text: String) -> [Substring] {
        let scalars = text.unicodeScalars
        var names: [Substring] = []
        var index = scalars.startIndex
        while let found = scalars[index...].firstIndex(of: sign) {
            let start = scalars.index(after: found)
            index = scalars[start...].firstIndex { !isAnchorName($0) } ?? scalars.endIndex
            if index > start { names.append(text[start..<index]) }
        }
        return names
    }

    private static func isAnchorName(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar {
        case "0"..."9", "A"..."Z", "a"..."z", "_", "-": true
        default: false
        }
    }

    private static func failure(repeating name: String, at mark: Mark) -> Failure {
        Failure(
            origin: .file(line: max(1, mark.line), column: max(1, mark.column)),
            message: "\(quoted(name)) stands again below in this mapping; keep one")
    }

    private static func failure(_ error: YamlError) -> Failure {
        func at(_ mark: Mark, _ message: String) -> Failure {
            Failure(origin: .file(line: max(1, mark.line), column: max(1, mark.column)), message: message)
        }
        func syntax(_ context: YamlError.Context?, _ problem: String, _ mark: Mark) -> Failure {
            guard let context else { return at(mark, "not valid YAML: \(problem)") }
            return at(mark, "not valid YAML: \(problem) (\(context.text) from line \(context.mark.line))")
        }
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _):
            return syntax(context, problem, mark)
        case .composer(_, let problem, let mark, _):
            return at(mark, "not valid YAML: \(problem)")
        case .duplicatedKeysInMapping(let names, let context):
            return failure(repeating: names.first ?? "", at: context.mark)
        case .reader(let problem, _, _, _), .writer(let problem), .emitter(let problem), .representer(let problem):
            return Failure(origin: .file(line: 1, column: 1), message: "not valid YAML: \(problem)")
        case .no, .memory, .dataCouldNotBeDecoded:
            return Failure(origin: .file(line: 1, column: 1), message: "the file can not be read as YAML")
        }
    }
}
