// The commands of `npm run demo`, which the walkthrough begins with.
export const harvest = (folder) =>
  `harvest --model examples/brown-gpt --text examples/brown.txt.gz --tensor /transformer/h.3/Add_1_output_0 --tokens 250k --out ${folder}/acts.h5`;
export const train = (folder) =>
  `train ${folder}/acts.h5 --latents 2048 --k 32 --batch 1024 --tokens 3M --out ${folder}/sae`;
export const evaluate = (folder) => `eval ${folder}/sae --features 5`;
export const report = (folder) => `report ${folder}/sae --data ${folder}/acts.h5 --out ${folder}/features.html`;
