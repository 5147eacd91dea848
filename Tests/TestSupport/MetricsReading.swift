// The text form of Prometheus, read as strictly as a scraper reads it.

import Glibc

package struct MetricsReading {
    package struct Sample: Equatable {
        package var name: String
        package var labels: [String: String]
        package var value: Double
    }

    package private(set) var samples: [Sample] = []
    /// By the name of the metric.
    package private(set) var types: [String: String] = [:]
    package private(set) var helps: [String: String] = [:]
    /// What breaks the rules of the format.
    package private(set) var faults: [String] = []

    package init(_ text: String) {
        var current = ""
        var closed: Set<String> = []
        if !text.hasSuffix("\n") { faults.append("no line end at the end") }
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            if line.hasPrefix("# ") {
                let parts = line.split(separator: " ", maxSplits: 3).map(String.init)
                guard parts.count == 4 else {
                    faults.append("\(line)")
                    continue
                }
                if parts[2] != current {
                    closed.insert(current)
                    current = parts[2]
                    if closed.contains(current) { faults.append("\(current) comes twice") }
                }
                if parts[1] == "TYPE" { types[current] = parts[3] } else { helps[current] = parts[3] }
                continue
            }
            guard let sample = Self.sample(line) else {
                faults.append("\(line)")
                continue
            }
            if Self.family(sample.name, types) != current { faults.append("\(sample.name) stands under \(current)") }
            if samples.contains(where: { $0.name == sample.name && $0.labels == sample.labels }) {
                faults.append("\(line) comes twice")
            }
            samples.append(sample)
        }
        for name in types.keys where helps[name] == nil { faults.append("\(name) has no help") }
    }

    /// The metric that a sample belongs to.
    package static func family(_ name: String, _ types: [String: String]) -> String {
        if types[name] != nil { return name }
        for suffix in ["_bucket", "_sum", "_count"] where name.hasSuffix(suffix) {
            let family = String(name.dropLast(suffix.count))
            if types[family] == "histogram" { return family }
        }
        return name
    }

    private static func sample(_ line: Substring) -> Sample? {
        var rest = line
        let name = rest.prefix { $0.isLetter || $0.isNumber || $0 == "_" }
        rest = rest.dropFirst(name.count)
        var labels: [String: String] = [:]
        if rest.first == "{" {
            rest = rest.dropFirst()
            while rest.first != "}" {
                let label = rest.prefix { $0 != "=" }
                rest = rest.dropFirst(label.count)
                guard rest.hasPrefix("=\"") else { return nil }
                rest = rest.dropFirst(2)
                var value = ""
                while let character = rest.popFirst(), character != "\"" {
                    guard character == "\\" else {
                        value.append(character)
                        continue
                    }
                    switch rest.popFirst() {
                    case "n": value.append("\n")
                    case "\\": value.append("\\")
                    case "\"": value.append("\"")
                    default: return nil
                    }
                }
                guard labels.updateValue(value, forKey: String(label)) == nil else { return nil }
                if rest.first == "," { rest = rest.dropFirst() } else if rest.first != "}" { return nil }
            }
            rest = rest.dropFirst()
        }
        guard !name.isEmpty, rest.first == " ", let value = Double(rest.dropFirst()) else { return nil }
        return Sample(name: String(name), labels: labels, value: value)
    }

    /// The sum of all samples of a name that have these labels among theirs.
    package func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        let found = samples.filter { sample in
            sample.name == name && labels.allSatisfy { sample.labels[$0.key] == $0.value }
        }
        return found.isEmpty ? nil : found.reduce(0) { $0 + $1.value }
    }
}

extension SluiceNode {
    package func metrics() throws -> MetricsReading { MetricsReading(try admin("/metrics").text) }
}
