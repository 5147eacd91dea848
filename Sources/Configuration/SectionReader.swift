// Reads one mapping of the tree into typed values, noting every problem instead of stopping at the first.

import Primitives

/// Gathers problems while a configuration is read.
final class ProblemList {
    var problems: [ConfigurationProblem] = []
    var warnings: [ConfigurationProblem] = []

    func report(_ origin: Origin, _ message: String) {
        problems.append(ConfigurationProblem(place: origin.place, message: message))
    }
}

/// One mapping. Ask for its keys, then `finish`: what nobody asked for is an unknown key.
final class SectionReader {
    let path: String
    let origin: Origin
    let list: ProblemList
    private var entries: [String: Value.Entry] = [:]
    private var order: [String] = []
    private var known: [String] = []

    /// `nil` value: an empty section, all defaults.
    init(_ value: Value?, path: String, list: ProblemList, fallback: Origin) {
        self.path = path
        self.list = list
        origin = value?.origin ?? fallback
        guard let value else { return }
        switch value.content {
        case .mapping(let entries):
            for entry in entries {
                self.entries[entry.key] = entry
                order.append(entry.key)
            }
        case .null: break
        case .scalar, .sequence:
            list.report(value.origin, "\(path) must be a mapping of keys, not \(value.kind)")
        }
    }

    func name(_ key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// The value of a key; `nil` where it is absent or empty.
    func value(_ key: String) -> Value? {
        known.append(key)
        guard let value = entries[key]?.value else { return nil }
        if case .null = value.content { return nil }
        return value
    }

    func origin(of key: String) -> Origin { entries[key]?.value.origin ?? origin }

    func section(_ key: String) -> SectionReader {
        SectionReader(value(key), path: name(key), list: list, fallback: origin)
    }

    func finish() {
        for key in order where !known.contains(key) {
            guard let entry = entries[key] else { continue }
            let hint = Suggestion.nearest(key, among: known).map { " (did you mean \(name($0))?)" }
            let remedy = hint ?? ": known here are \(known.sorted().joined(separator: ", "))"
            list.report(entry.keyOrigin, "unknown key \(name(key))\(remedy)")
        }
    }

    // MARK: Scalars

    /// The text of a scalar; a list or a mapping in its place is a problem.
    func text(_ key: String) -> (text: String, origin: Origin)? {
        guard let value = value(key) else { return nil }
        guard case .scalar(let text) = value.content else {
            list.report(value.origin, "\(name(key)) must be one value, not \(value.kind)")
            return nil
        }
        return (text, value.origin)
    }

    func string(_ key: String, _ target: inout String) {
        guard let (text, origin) = text(key) else { return }
        if text.isEmpty { list.report(origin, "\(name(key)) must not be empty") } else { target = text }
    }

    func flag(_ key: String, _ target: inout Bool) {
        guard let (text, origin) = text(key) else { return }
        switch text.lowercased() {
        case "true", "yes", "on": target = true
        case "false", "no", "off": target = false
        default: list.report(origin, "\(name(key)) must be true or false, not \"\(text)\"")
        }
    }

    func integer(_ key: String, _ target: inout Int, in range: ClosedRange<Int>) {
        guard let (text, origin) = text(key) else { return }
        guard let number = Self.integer(text), range.contains(number) else {
            list.report(
                origin, "\(name(key)) must be a whole number from \(range.lowerBound) to \(range.upperBound), not \"\(text)\"")
            return
        }
        target = number
    }

    static func integer(_ text: String) -> Int? {
        let digits = text.filter { $0 != "_" }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        return Int(digits)
    }

    func choice<Choice: RawRepresentable & CaseIterable>(_ key: String, _ target: inout Choice)
    where Choice.RawValue == String {
        guard let (text, origin) = text(key) else { return }
        if let choice = Choice(rawValue: text) {
            target = choice
            return
        }
        let choices = Choice.allCases.map(\.rawValue)
        let hint = Suggestion.nearest(text, among: choices).map { " (did you mean \($0)?)" } ?? ""
        list.report(
            origin, "\(name(key)) must be one of \(choices.joined(separator: ", ")), not \"\(text)\"\(hint)")
    }

    /// A duration with its unit. `bareSeconds`: a number alone counts seconds. A bare 0 needs no unit.
    func duration(
        _ key: String, _ target: inout TimeSpan, from least: TimeSpan, to most: TimeSpan = .seconds(86_400),
        bareSeconds: Bool = false
    ) {
        guard let (text, origin) = text(key) else { return }
        guard let span = Self.duration(text, bareSeconds: bareSeconds) else {
            list.report(
                origin, "\(name(key)) must be a duration with its unit, such as 500ms, 30s or 5m, not \"\(text)\"")
            return
        }
        guard span >= least, span <= most else {
            list.report(origin, "\(name(key)) must be from \(least) to \(most), not \(text)")
            return
        }
        target = span
    }

    static func duration(_ text: String, bareSeconds: Bool) -> TimeSpan? {
        let units: [(String, Int64)] = [
            ("ms", 1_000_000), ("us", 1_000), ("ns", 1), ("s", 1_000_000_000), ("m", 60_000_000_000),
            ("h", 3_600_000_000_000), ("d", 86_400_000_000_000),
        ]
        for (unit, size) in units where text.hasSuffix(unit) {
            return scaled(String(text.dropLast(unit.count)), size)
        }
        if text == "0" { return .zero }
        return bareSeconds ? scaled(text, 1_000_000_000) : nil
    }

    /// Decimal digits with at most one point, times a size.
    private static func scaled(_ text: String, _ size: Int64) -> TimeSpan? {
        let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.allSatisfy({ !$0.isEmpty && $0.count <= 15 && $0.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } }),
            let whole = Int64(parts[0])
        else { return nil }
        var span = TimeSpan(nanoseconds: saturatingMultiply(whole, size))
        if parts.count == 2, let fraction = Double("0.\(parts[1])") {
            span = span + TimeSpan(nanoseconds: Int64(fraction * Double(size)))
        }
        return span
    }

    /// A size: `64KiB`, `1MiB`, `64KB`, or a bare number of bytes.
    func size(_ key: String, _ target: inout ByteCount, from least: Int = 0) {
        guard let (text, origin) = text(key) else { return }
        guard let bytes = Self.size(text), bytes >= least else {
            list.report(
                origin,
                "\(name(key)) must be a size such as 64KiB or 1MiB\(least > 0 ? ", at least \(least) bytes" : ""), not \"\(text)\"")
            return
        }
        target = .bytes(bytes)
    }

    static func size(_ text: String) -> Int? {
        let units: [(String, Int)] = [
            ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("KB", 1_000), ("MB", 1_000_000),
            ("GB", 1_000_000_000), ("B", 1),
        ]
        for (unit, factor) in units where text.hasSuffix(unit) {
            guard let number = integer(String(text.dropLast(unit.count))) else { return nil }
            let (bytes, overflow) = number.multipliedReportingOverflow(by: factor)
            return overflow ? nil : bytes
        }
        return integer(text)
    }

    /// A list of words; one word alone is a list of one.
    func words(_ key: String) -> [(text: String, origin: Origin)]? {
        guard let value = value(key) else { return nil }
        switch value.content {
        case .scalar(let text): return [(text, value.origin)]
        case .null: return nil
        case .sequence(let items):
            return items.compactMap { item in
                guard case .scalar(let text) = item.content else {
                    list.report(item.origin, "\(name(key)) must be a list of words")
                    return nil
                }
                return (text, item.origin)
            }
        case .mapping:
            list.report(value.origin, "\(name(key)) must be a list, not a mapping")
            return nil
        }
    }
}
