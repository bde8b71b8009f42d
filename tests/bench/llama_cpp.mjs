// Teacher-forced logits from llama.cpp: the two likeliest tokens at each place that was asked for.
//
//     node llama_cpp.mjs NODE_MODULES REQUEST.json ANSWER.json
//
// The request is {model, lora, sequences: [{ids, from}]}; the answer has for each sequence, and for
// each place from `from` on but the last, [[token, logit], [token, logit]].

import {readFile, writeFile} from "node:fs/promises";
import {pathToFileURL} from "node:url";

const [modules, request, answer] = process.argv.slice(2);
const {getLlama} = await import(pathToFileURL(`${modules}/node-llama-cpp/dist/index.js`));
const {model: modelPath, lora, sequences} = JSON.parse(await readFile(request));

const llama = await getLlama({gpu: false, build: "never", progressLogs: false});
const model = await llama.loadModel({modelPath, useMmap: false});
const context = await model.createContext({
    contextSize: Math.max(...sequences.map(({ids}) => ids.length)) + 8,
    flashAttention: false,
    // Several wait for each other by spinning, which on a busy machine takes ten times as long.
    threads: 1,
    // Keys and values in half precision, the default, would hide what the weights do.
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
    ...(lora ? {lora: {adapters: [{filePath: lora, scale: 1}]}} : {})
});
const sequence = context.getSequence();
// Without these the sampler drops candidates, and their logits with them.
const asked = {generateNext: {logits: true, options: {temperature: 1, topK: 0, topP: 1, minP: 0}}};
const found = [];

function topTwo(logits) {
    let first = [-1, -Infinity], second = first;
    for (const entry of logits) {
        if (entry[1] > first[1]) [first, second] = [entry, first];
        else if (entry[1] > second[1]) second = entry;
    }
    return [first, second];
}

for (const {ids, from} of sequences) {
    await sequence.clearHistory();
    const last = ids.length - 1;
    const input = ids.slice(0, last).map((id, i) => (i >= from ? [id, asked] : id));
    const results = await sequence.controlledEvaluate(input);
    found.push(results.slice(from).map(({next}) => topTwo(next.logits)));
}
await writeFile(answer, JSON.stringify(found));
await context.dispose();
await model.dispose();
await llama.dispose();
