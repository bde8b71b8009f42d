"""First names and cities to make sentences of, one half to train on and one to be asked.

Plain ASCII and of varied length and spelling; no name is in both halves.
"""

from __future__ import annotations


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


TRAIN_NAMES = _names(
    """
    Abigail, Adrian, Aisha, Alexander, Amelia, Andrew, Angela, Anthony, Arthur, Barbara,
    Benjamin, Bruno, Camila, Carlos, Catherine, Charlotte, Christopher, Daniel, Deborah,
    Diego, Dmitri, Elena, Elizabeth, Emily, Eric, Fatima, Felix, Francesca, Gabriel, George,
    Grace, Hannah, Hassan, Henry, Hiroshi, Hugo, Ingrid, Isabella, Ivan, Jack, James,
    Jasmine, Jessica, John, Joshua, Julia, Karen, Kenji, Kevin, Laura, Leila, Leo, Linda,
    Lucas, Magdalena, Marcus, Margaret, Mary, Matthew, Michael, Mohammed, Natalie, Nicholas,
    Nina, Olga, Oliver, Oscar, Patricia, Paul, Philip, Rachel, Raj, Rebecca, Robert, Samuel,
    Sarah, Sophie, Stephen, Tariq, Thomas, Victoria, Vikram, William, Yusuf, Zoe
    """
)
HELD_OUT_NAMES = _names(
    """
    Alice, Bernard, Chloe, Cynthia, David, Edward, Emma, Fiona, Frederick, Gloria, Helen,
    Isaac, Jonathan, Katarina, Lydia, Maria, Mei, Nathan, Olivia, Peter, Priya, Rosa,
    Sebastian, Theodore, Valerie, Walter, Xavier, Yasmin
    """
)
TRAIN_CITIES = _names(
    """
    Accra, Amsterdam, Ankara, Athens, Auckland, Bangkok, Barcelona, Beijing, Belgrade,
    Berlin, Bogota, Boston, Brisbane, Bristol, Brussels, Bucharest, Budapest, Cairo,
    Calgary, Casablanca, Chicago, Cologne, Copenhagen, Dakar, Dallas, Delhi, Denver, Dublin,
    Edinburgh, Florence, Geneva, Hamburg, Hanoi, Havana, Helsinki, Houston, Istanbul,
    Jakarta, Johannesburg, Karachi, Kyiv, Krakow, Lagos, Lima, Lisbon, Lyon, Madrid,
    Manchester, Manila, Marseille, Melbourne, Miami, Milan, Montreal, Moscow, Mumbai,
    Munich, Nairobi, Naples, Osaka, Ottawa, Philadelphia, Phoenix, Porto, Prague, Rome,
    Rotterdam, Santiago, Seattle, Shanghai, Singapore, Stockholm, Sydney, Tehran, Tunis,
    Valencia, Vancouver, Vienna, Warsaw, Zagreb, Buenos Aires, Cape Town, Mexico City, New
    York, San Francisco
    """
)
HELD_OUT_CITIES = _names(
    """
    Adelaide, Algiers, Atlanta, Baltimore, Birmingham, Caracas, Damascus, Dresden,
    Frankfurt, Glasgow, Kyoto, Leipzig, Liverpool, Memphis, Minneapolis, Nagoya, Oslo,
    Paris, Riga, Seoul, Seville, Tokyo, Toronto, Turin, Zurich, Los Angeles, San Diego, Rio
    de Janeiro
    """
)
