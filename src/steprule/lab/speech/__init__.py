"""Speech: wav files and their transcripts, log-energy features, and targets for each frame by forced alignment.

The path is that of the data of Zeiler 2012, 4.4, on a public corpus: filter banks, then a GMM-HMM trained from a flat start,
whose best path through each utterance labels its frames with states ("senones").
"""
